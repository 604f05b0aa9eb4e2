//! Which key an operation is about.

use std::str::FromStr;

use triad_tests::dice::Dice;

/// The skew of YCSB, by which most measurements of others were made.
const YCSB: f64 = 0.99;
/// A skew of 1 has no value here, and beyond it one key would be all.
const SKEW: std::ops::RangeInclusive<f64> = 0.01..=0.99;
/// Preparing a zipfian choice looks at each key once.
pub const KEYS_MAX: u64 = 10_000_000;
/// Numbers that a `f64` tells apart between 0 and 1.
const STEPS: u64 = 1 << 53;

/// How unevenly keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Popularity {
    /// All the same.
    Uniform,
    /// The i-th most popular one in proportion to 1 / i^skew.
    Zipf(f64),
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: wanted uniform, zipf or zipf:SKEW with 0.01 to 0.99");
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipf" => Ok(Self::Zipf(YCSB)),
            Some(("zipf", skew)) => {
                let skew = skew.parse().ok().filter(|skew| SKEW.contains(skew));
                skew.map(Self::Zipf).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

/// So many keys, chosen by their popularity.
#[derive(Debug)]
pub struct Keys {
    count: u64,
    zipf: Option<Zipf>,
}

/// The method of Gray et al., *Quickly Generating Billion-Record Synthetic Databases* (1994).
#[derive(Debug)]
struct Zipf {
    skew: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Keys {
    /// Between 1 and [`KEYS_MAX`] keys.
    pub fn new(count: u64, popularity: Popularity) -> Self {
        let count = count.clamp(1, KEYS_MAX);
        let zipf = match popularity {
            Popularity::Uniform => None,
            Popularity::Zipf(skew) => Some(Zipf::new(count, skew)),
        };
        Self { count, zipf }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next one, by number. The most popular is number 0.
    pub fn pick(&self, dice: &mut Dice) -> u64 {
        match &self.zipf {
            None => dice.roll(0..self.count),
            Some(zipf) => zipf.pick(dice.roll(0..STEPS) as f64 / STEPS as f64, self.count),
        }
    }

    /// The key of a number.
    pub fn name(number: u64) -> String {
        format!("key{number:012}")
    }
}

impl Zipf {
    fn new(count: u64, skew: f64) -> Self {
        let zeta = |count: u64| (1..=count).map(|i| (i as f64).powf(-skew)).sum::<f64>();
        let all = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - skew)) / (1.0 - zeta(2) / all);
        Self { skew, zeta: all, alpha: 1.0 / (1.0 - skew), eta }
    }

    /// The number for a point between 0 and 1.
    fn pick(&self, point: f64, count: u64) -> u64 {
        let scaled = point * self.zeta;
        if count == 1 || scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.skew) {
            return 1;
        }
        let number = count as f64 * (self.eta * point - self.eta + 1.0).powf(self.alpha);
        (number as u64).min(count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(popularity: Popularity) -> Vec<u32> {
        let keys = Keys::new(100, popularity);
        let mut dice = Dice::seeded(1);
        let mut counts = vec![0; 100];
        (0..100_000).for_each(|_| counts[keys.pick(&mut dice) as usize] += 1);
        counts
    }

    #[test]
    fn uniform_keys_are_asked_for_alike() {
        assert!(counts(Popularity::Uniform).iter().all(|count| (800..1_200).contains(count)));
    }

    #[test]
    fn zipfian_keys_follow_the_law() {
        let counts = counts(Popularity::Zipf(0.99));
        // 1 / (sum of i^-0.99 for 100 keys) is 0.189.
        assert!((18_000..20_000).contains(&counts[0]), "{}", counts[0]);
        let half = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.8..2.2).contains(&half), "{half}");
        assert!(counts[0] > counts[9] && counts[9] > counts[90] && counts[99] > 0);
    }

    #[test]
    fn a_single_key_is_chosen_always() {
        for popularity in [Popularity::Uniform, Popularity::Zipf(0.5)] {
            assert_eq!(Keys::new(0, popularity).pick(&mut Dice::seeded(1)), 0);
        }
    }

    #[test]
    fn popularities_are_read_and_wrong_ones_explained() {
        assert_eq!("uniform".parse(), Ok(Popularity::Uniform));
        assert_eq!("zipf".parse(), Ok(Popularity::Zipf(0.99)));
        assert_eq!("zipf:0.5".parse(), Ok(Popularity::Zipf(0.5)));
        for wrong in ["", "zipf:1", "zipf:x", "normal", "uniform:2"] {
            assert!(wrong.parse::<Popularity>().unwrap_err().contains("wanted"), "{wrong}");
        }
    }
}
