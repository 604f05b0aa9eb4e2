//! Stored keys in words.

use std::fmt::Write as _;

use super::Key;

/// The key in words, for errors and logs. Long keys are cut.
pub(in crate::store) fn describe(key: &[u8]) -> String {
    const SHOWN: usize = 48;
    match Key::decode(key) {
        Some(Key::Record { shard, bucket, key }) => {
            format!("record of shard {} in bucket `{bucket}`, key {}", shard.get(), hex(key, SHOWN))
        }
        Some(other) => format!("{other:?}"),
        None => format!("with unknown key {}", hex(key, SHOWN)),
    }
}

fn hex(bytes: &[u8], shown: usize) -> String {
    let mut text = String::from("0x");
    for byte in bytes.iter().take(shown) {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > shown {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}
