//! Rows of bars on one time line, as SVG.
#![allow(clippy::cast_precision_loss, reason = "what is lost is far less than a pixel")]

use std::fmt::Write as _;

use crate::operation::Time;

/// Sizes in pixels.
const WIDTH: f64 = 1_500.0;
const LEFT: f64 = 110.0;
const ROW: f64 = 18.0;
const BAR: f64 = 12.0;
/// Nothing is drawn narrower: it could not be pointed at.
const NARROWEST: f64 = 1.5;
/// Labels of the time line.
const TICKS: u32 = 10;

/// A drawing that grows downwards, row by row.
pub(super) struct Canvas {
    from: Time,
    to: Time,
    rows: usize,
    body: String,
}

impl Canvas {
    pub(super) fn new(from: Time, to: Time) -> Self {
        Self { from, to, rows: 0, body: String::new() }
    }

    /// Begins the next row.
    pub(super) fn row(&mut self, name: &str) {
        self.rows += 1;
        let (y, name) = (self.top() + BAR - 2.0, escaped(name));
        let _ = write!(self.body, "<text x=\"4\" y=\"{y:.0}\">{name}</text>");
    }

    /// A bar in this row; without an end it goes on to the right edge.
    pub(super) fn bar(&mut self, start: Time, end: Option<Time>, colour: &str, title: &str) {
        let left = self.x(start);
        let width = (end.map_or(WIDTH, |end| self.x(end)) - left).max(NARROWEST);
        let (top, title) = (self.top(), escaped(title));
        let _ = write!(
            self.body,
            "<rect x=\"{left:.1}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{BAR}\" \
             fill=\"{colour}\" fill-opacity=\".75\"><title>{title}</title></rect>"
        );
    }

    /// Counts in equal parts of the time, as heights in this row.
    pub(super) fn counts(&mut self, counts: &[usize], colour: &str) {
        let most = counts.iter().copied().max().unwrap_or_default().max(1);
        let width = (WIDTH - LEFT) / counts.len() as f64;
        let bottom = self.top() + BAR;
        for (part, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = BAR * *count as f64 / most as f64;
            let (left, top) = (LEFT + width * part as f64, bottom - height);
            let _ = write!(
                self.body,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"><title>{count}</title></rect>"
            );
        }
    }

    /// A line through all rows.
    pub(super) fn mark(&mut self, at: Time, name: &str) {
        let (x, bottom, name) = (self.x(at), self.height(), escaped(name));
        let _ = write!(
            self.body,
            "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom:.0}\" stroke=\"#000\" \
             stroke-dasharray=\"4 3\"/><text x=\"{x:.1}\" y=\"{bottom:.0}\">{name}</text>"
        );
    }

    pub(super) fn finish(mut self) -> String {
        let bottom = self.height();
        for tick in 0..TICKS {
            let at = self.from + (self.to - self.from) / u64::from(TICKS) * u64::from(tick);
            let (x, seconds) = (self.x(at), at as f64 / 1e6);
            let _ = write!(
                self.body,
                "<text x=\"{x:.0}\" y=\"{:.0}\" fill=\"#666\">{seconds:.3} s</text>",
                bottom + ROW - 4.0
            );
        }
        let height = bottom + ROW;
        format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" xmlns=\"http://www.w3.org/2000/svg\">{}</svg>",
            self.body
        )
    }

    fn x(&self, at: Time) -> f64 {
        let share =
            (at.clamp(self.from, self.to) - self.from) as f64 / (self.to - self.from) as f64;
        LEFT + share * (WIDTH - LEFT)
    }

    fn top(&self) -> f64 {
        4.0 + ROW * (self.rows.max(1) - 1) as f64
    }

    fn height(&self) -> f64 {
        8.0 + ROW * self.rows as f64
    }
}

/// Text that is safe between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
