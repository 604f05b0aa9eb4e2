//! A causal context as clients carry it: opaque, and proof against forgery.
//!
//! A context that a client made up could cover writes that nobody has seen, and so delete
//! them unread; so could one of another key. Therefore a token carries a keyed hash over the
//! bucket, the key and the context (design rule D13): only what a node of this cluster handed
//! out for this very key is taken back.
//!
//! ```text
//! version   1 byte, now 1
//! context   see `Context::encode`
//! mac       first 8 bytes of HMAC-SHA-256 (cluster secret) over
//!           version ‖ length bucket ‖ length key ‖ context
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::context::{Context, ContextError};

const VERSION: u8 = 1;
const MAC_LEN: usize = 8;

/// The most entries a token may have. Writes stop growing a context at 1,024 entries, but
/// merging the records of several members can pass that, and the token for such a record must
/// still be accepted: it is what resolves it.
pub const MAX_TOKEN_ENTRIES: usize = 4096;

/// The most bytes that can be a token; anything longer is refused unread.
pub const MAX_TOKEN_LEN: usize = 1 + 2 * 10 + MAX_TOKEN_ENTRIES * 18 + MAC_LEN;

/// The secret that all nodes of a cluster share, drawn once when the cluster is made.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

impl ClusterSecret {
    /// Wraps 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the store and for a node that is admitted.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: debug output ends in logs.
        f.write_str("ClusterSecret(..)")
    }
}

/// Why a client's context was refused. All are one error to the client (`BAD_CONTEXT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadContext {
    /// Shorter than any token, or longer than the longest.
    #[error("the context is {0} bytes long, no context is")]
    Length(usize),
    /// Of a format that this version does not know.
    #[error("the context's format version {0} is unknown")]
    UnknownVersion(u8),
    /// Not handed out by this cluster for this bucket and key, or changed since.
    #[error("the context was not made by this cluster for this bucket and key")]
    Forged,
    /// Authentic, but unreadable: a defect of the node that made it.
    #[error(transparent)]
    Content(#[from] ContextError),
}

/// The token of `context`, good for this bucket and key only. Never empty, even for the empty
/// context: a put with "I have seen nothing" is causal, a put without a context overwrites.
pub fn seal(secret: &ClusterSecret, bucket: &str, key: &[u8], context: &Context) -> Bytes {
    let body = context.encode();
    let mut token = BytesMut::with_capacity(1 + body.len() + MAC_LEN);
    token.put_u8(VERSION);
    token.put_slice(&body);
    let mac = mac(secret, VERSION, bucket, key, &body).finalize().into_bytes();
    token.put_slice(&mac[..MAC_LEN]);
    token.freeze()
}

/// The context in a token, after proof that it was sealed for this bucket and key.
pub fn open(
    secret: &ClusterSecret,
    bucket: &str,
    key: &[u8],
    mut token: Bytes,
) -> Result<Context, BadContext> {
    let len = token.len();
    if len <= 1 + MAC_LEN || len > MAX_TOKEN_LEN {
        return Err(BadContext::Length(len));
    }
    let tag = token.split_off(len - MAC_LEN);
    let body = token.split_off(1);
    match *token {
        [VERSION] => {}
        [other, ..] => return Err(BadContext::UnknownVersion(other)),
        [] => return Err(BadContext::Length(len)),
    }
    mac(secret, VERSION, bucket, key, &body)
        .verify_truncated_left(&tag)
        .map_err(|_| BadContext::Forged)?;
    Ok(Context::decode_bounded(body, MAX_TOKEN_ENTRIES)?)
}

fn mac(secret: &ClusterSecret, version: u8, bucket: &str, key: &[u8], body: &[u8]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of every length");
    mac.update(&[version]);
    // Lengths, so that no two (bucket, key) pairs give the same bytes.
    for part in [bucket.as_bytes(), key] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::Dot;
    use crate::member::ActorId;
    use proptest::prelude::*;

    const SECRET: ClusterSecret = ClusterSecret::from_bytes([7; 32]);

    fn seen() -> Context {
        let dot = |actor, counter| Dot::new(ActorId::new(actor), counter);
        [dot(1, 1), dot(1, 2), dot(9, 4)].into_iter().collect()
    }

    #[test]
    fn a_token_comes_back_for_its_bucket_and_key() {
        let token = seal(&SECRET, "default", b"greeting", &seen());
        assert_eq!(open(&SECRET, "default", b"greeting", token), Ok(seen()));
    }

    #[test]
    fn having_seen_nothing_is_a_token_too() {
        let token = seal(&SECRET, "default", b"k", &Context::new());
        assert!(!token.is_empty());
        assert_eq!(open(&SECRET, "default", b"k", token), Ok(Context::new()));
    }

    #[test]
    fn a_token_of_another_key_bucket_or_cluster_is_forged() {
        let token = seal(&SECRET, "default", b"greeting", &seen());
        let other = ClusterSecret::from_bytes([8; 32]);
        let forged = Err(BadContext::Forged);
        assert_eq!(open(&SECRET, "default", b"greetinG", token.clone()), forged);
        assert_eq!(open(&SECRET, "any.default", b"greeting", token.clone()), forged);
        assert_eq!(open(&SECRET, "defaul", b"tgreeting", token.clone()), forged);
        assert_eq!(open(&other, "default", b"greeting", token), forged);
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_by_its_length() {
        let open = |len| open(&SECRET, "b", b"k", Bytes::from(vec![1; len]));
        assert_eq!(open(0), Err(BadContext::Length(0)));
        assert_eq!(open(9), Err(BadContext::Length(9)));
        let huge = MAX_TOKEN_LEN + 1;
        assert_eq!(open(huge), Err(BadContext::Length(huge)));
    }

    #[test]
    fn the_longest_token_is_accepted_and_one_entry_more_is_not() {
        let dots = |n: usize| -> Context {
            (0..n as u64).map(|i| Dot::new(ActorId::new(i), u64::MAX)).collect()
        };
        let fits = dots(MAX_TOKEN_ENTRIES);
        let token = seal(&SECRET, "b", b"k", &fits);
        assert_eq!(open(&SECRET, "b", b"k", token), Ok(fits));
        let token = seal(&SECRET, "b", b"k", &dots(MAX_TOKEN_ENTRIES + 1));
        assert!(open(&SECRET, "b", b"k", token).is_err());
    }

    #[test]
    fn debug_output_does_not_tell_the_secret() {
        assert_eq!(format!("{SECRET:?}"), "ClusterSecret(..)");
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), by in 1_u8..) {
            let mut token = seal(&SECRET, "default", b"k", &seen()).to_vec();
            let at = at.index(token.len());
            token[at] ^= by;
            prop_assert!(open(&SECRET, "default", b"k", token.into()).is_err());
        }

        #[test]
        fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&SECRET, "default", b"k", garbage.into()).is_err());
        }
    }
}
