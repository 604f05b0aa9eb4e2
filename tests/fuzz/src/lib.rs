//! Hostile bytes for decoders.
//!
//! Whatever reads what comes from a disk, a peer, a client or an operator's file is a [`Target`] in the tests of its crate:
//! some valid encodings, and a function that decodes and encodes again. It is held to three laws, on random bytes and on
//! valid ones that were [mutated](Mutation):
//!
//! - It does not panic.
//! - It asks for no more memory than a small multiple of the bytes that it is given, whatever lengths they claim.
//! - What it accepts is what it gives back: decoding what was encoded changes nothing more. Formats with one encoding for
//!   each value ([`Target::canonical`]) give back the very bytes.
//!
//! A case that breaks a law is made small and printed; the same seed (`PROPTEST_RNG_SEED`) finds it again, and
//! `cargo xtask fuzz` tries others. `tests/tests/decoders.rs` knows all decoders, so that none is left out.

mod mutation;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use mutation::place;
pub use mutation::{Mutation, Place, mutations, varint};

/// Mutated inputs tried on each target, unless `PROPTEST_CASES` asks for more.
const CASES: u32 = 600;
/// The longest input of random bytes.
const RANDOM_BYTES: usize = 300;
/// What decoding may ask for at once beside the multiple of its input: messages of errors, tables of constant size.
const MEMORY_BASE: u64 = 16 << 10;
/// What it may ask for, for each byte of its input.
const MEMORY_FACTOR: u64 = 48;

/// A decoder under attack.
#[derive(Clone)]
pub struct Target {
    name: &'static str,
    examples: Vec<Vec<u8>>,
    seal: Option<fn(&mut Vec<u8>)>,
    canonical: bool,
    memory_factor: u64,
}

/// One input, as it came about.
#[derive(Clone)]
struct Case {
    bytes: Vec<u8>,
    how: String,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.how, String::from_utf8_lossy(&self.bytes).escape_debug())?;
        f.write_str(" = [")?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:#04x}, "))?;
        f.write_str("]")
    }
}

impl Target {
    /// A decoder by its name in the list of all, with some valid inputs.
    pub fn new<B: Into<Vec<u8>>>(
        name: &'static str,
        examples: impl IntoIterator<Item = B>,
    ) -> Self {
        let examples: Vec<Vec<u8>> = examples.into_iter().map(Into::into).collect();
        assert!(!examples.is_empty(), "{name} needs a valid input to begin with");
        Self { name, examples, seal: None, canonical: false, memory_factor: MEMORY_FACTOR }
    }

    /// Each value has one encoding: what is accepted is given back byte by byte.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.canonical = true;
        self
    }

    /// Half of the mutated inputs get a valid checksum again, or nothing behind it would be reached.
    #[must_use]
    pub fn sealed(mut self, seal: fn(&mut Vec<u8>)) -> Self {
        self.seal = Some(seal);
        self
    }

    /// Bytes of memory for each byte of input that this format cannot do without.
    #[must_use]
    pub fn memory_factor(mut self, factor: u64) -> Self {
        self.memory_factor = factor;
        self
    }

    /// Holds the decoder to the laws. `decode` gives what it has read in its encoding, or none when it refuses.
    pub fn attack(self, decode: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        for example in &self.examples {
            let back = decode(example);
            assert!(back.is_some(), "{}: a valid input is refused: {example:?}", self.name);
            let judged = self.judge(&decode, example);
            assert_eq!(judged, Ok(()), "{}: {example:?}", self.name);
        }
        let config = Config { failure_persistence: None, ..Config::default() };
        let cases = config.cases.max(CASES);
        let mut runner = TestRunner::new(Config { cases, ..config });
        let ran = runner.run(&self.cases(), |case| {
            self.judge(&decode, &case.bytes).map_err(TestCaseError::fail)
        });
        assert!(ran.is_ok(), "{}: {}", self.name, ran.expect_err("it is not ok"));
    }

    fn judge(
        &self,
        decode: &impl Fn(&[u8]) -> Option<Vec<u8>>,
        bytes: &[u8],
    ) -> Result<(), String> {
        let mut back = Ok(None);
        // Caught in there, or the count would never end.
        let read = || back = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
        let used = allocation_counter::measure(read).bytes_max;
        let back = back.map_err(|panic| format!("it panics: {}", words(&*panic)))?;
        let allowed = MEMORY_BASE + self.memory_factor * bytes.len() as u64;
        if used > allowed {
            return Err(format!("{used} bytes of memory for {} of input", bytes.len()));
        }
        match back {
            Some(back) if self.canonical && back != bytes => {
                Err(format!("it has a second encoding: {back:?}"))
            }
            Some(back) if !self.canonical && decode(&back).as_ref() != Some(&back) => {
                Err(format!("what was read is not what it gives back: {back:?}"))
            }
            _ => Ok(()),
        }
    }

    fn cases(&self) -> impl Strategy<Value = Case> + use<> {
        let random = prop::collection::vec(any::<u8>(), 0..RANDOM_BYTES)
            .prop_map(|bytes| Case { bytes, how: "random".to_owned() });
        let (examples, seal) = (self.examples.clone(), self.seal);
        let mutated = (place(), place(), mutations(), any::<bool>()).prop_map(
            move |(which, other, mutations, sealed)| {
                let mut bytes = examples[which.among(examples.len())].clone();
                let other = &examples[other.among(examples.len())];
                mutations.iter().for_each(|mutation| mutation.apply(&mut bytes, other));
                let seal = seal.filter(|_| sealed);
                if let Some(seal) = seal {
                    seal(&mut bytes);
                }
                let sealed = if seal.is_some() { ", sealed again" } else { "" };
                Case { bytes, how: format!("{mutations:?}{sealed}") }
            },
        );
        prop_oneof![1 => random, 6 => mutated]
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default()
}

/// A target for text: bytes that are no UTF-8 are shown as such, as whoever reads a file or a variable does.
pub fn attack_text<T: fmt::Display>(
    name: &'static str,
    examples: &[&str],
    parse: impl Fn(&str) -> Option<T>,
) {
    Target::new(name, examples.iter().copied())
        .attack(|bytes| Some(parse(&String::from_utf8_lossy(bytes))?.to_string().into_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length, then so many bytes.
    fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        let (length, rest) = bytes.split_first()?;
        (usize::from(*length) == rest.len()).then(|| bytes.to_vec())
    }

    fn attacked(decode: impl Fn(&[u8]) -> Option<Vec<u8>> + std::panic::UnwindSafe) -> String {
        let attack =
            || Target::new("planted", [vec![3, 1, 2, 3], vec![0]]).canonical().attack(decode);
        let panicked = std::panic::catch_unwind(attack).expect_err("a planted defect is found");
        panicked.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_sound_decoder_passes() {
        Target::new("sound", [vec![3, 1, 2, 3], vec![0]]).canonical().attack(decode);
    }

    #[test]
    fn a_decoder_that_trusts_a_length_is_found() {
        let trusting = |bytes: &[u8]| {
            let length = usize::from(*bytes.first()?);
            let whole = bytes[..=length].to_vec();
            (whole.len() == bytes.len()).then_some(whole)
        };
        assert!(attacked(trusting).contains("out of range"));
    }

    #[test]
    fn a_decoder_that_reserves_what_is_claimed_is_found() {
        let greedy = |bytes: &[u8]| {
            let claimed: Vec<u8> = Vec::with_capacity(usize::from(*bytes.first()?) << 12);
            decode(bytes).filter(|_| claimed.is_empty())
        };
        assert!(attacked(greedy).contains("bytes of memory"));
    }

    #[test]
    fn a_decoder_that_overlooks_what_follows_is_found() {
        let careless = |bytes: &[u8]| {
            let length = usize::from(*bytes.first()?);
            bytes.get(..=length).map(<[u8]>::to_vec)
        };
        assert!(attacked(careless).contains("second encoding"));
    }
}
