//! What a person or a program sees: one renderer for each, and the console they go through.

pub(crate) mod json;
pub(crate) mod text;

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// How results and errors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people. No colours.
    Text,
    /// One object on stdout; an error is one line on stderr.
    Json,
}

/// Prints results and failures in the format asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    format: Format,
}

impl Console {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a result: the JSON object, or the text (made only when it is wanted).
    pub(crate) fn result<T: Serialize>(
        self,
        json: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => data(line(json).as_bytes()),
            Format::Text => data(text().as_bytes()),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Tells why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        match self.format {
            Format::Json => talk(&line(&json::failure(failure))),
            Format::Text => talk(&text::failure(failure)),
        }
    }
}

/// Bytes as they are, to stdout. A reader that went away (`triad ring | head`) is no error.
pub(crate) fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::local(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// A remark for people, to stderr. Where nobody listens any more it is dropped.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

fn line<T: Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value)
        .expect("every output type is made of strings, numbers and lists: it always serializes");
    line.push('\n');
    line
}
