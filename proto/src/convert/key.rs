//! Buckets, keys and values as clients send them.

use bytes::Bytes;

use super::bad_field::{BadField, quoted};
use crate::v1;

/// The bucket of requests that name none.
pub const DEFAULT_BUCKET: &str = "default";

/// How long things may be, in bytes (design §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A key.
    pub key_bytes: usize,
    /// The name of a bucket.
    pub bucket_bytes: usize,
    /// A value.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { key_bytes: 4096, bucket_bytes: 128, value_bytes: 1 << 20 }
    }
}

/// What a bucket promises (design §1). It is in the name, so that no lookup can be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BucketMode {
    /// All names but the following.
    Strict,
    /// `any.…`: takes writes whatever happens.
    Available,
    /// `lin.…`: linearizable, with compare-and-set.
    Linearizable,
}

impl BucketMode {
    /// The mode that a well-formed name asks for.
    pub fn of(bucket: &str) -> Self {
        if bucket.starts_with("any.") {
            Self::Available
        } else if bucket.starts_with("lin.") {
            Self::Linearizable
        } else {
            Self::Strict
        }
    }
}

/// A well-formed bucket and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The bucket; never empty.
    pub bucket: String,
    /// The key; never empty.
    pub key: Bytes,
    /// The key came as text, so the answer is text too, as far as values are UTF-8.
    pub as_text: bool,
}

impl RecordKey {
    /// The key of a Put.
    pub fn of_put(request: &v1::PutRequest, limits: &Limits) -> Result<Self, BadField> {
        Self::checked(&request.bucket, KeyForm::from(request.key_form.as_ref()), limits)
    }

    /// The key of a Get.
    pub fn of_get(request: &v1::GetRequest, limits: &Limits) -> Result<Self, BadField> {
        Self::checked(&request.bucket, KeyForm::from(request.key_form.as_ref()), limits)
    }

    /// The key of a Delete.
    pub fn of_delete(request: &v1::DeleteRequest, limits: &Limits) -> Result<Self, BadField> {
        Self::checked(&request.bucket, KeyForm::from(request.key_form.as_ref()), limits)
    }

    /// The key of a Locate.
    pub fn of_locate(request: &v1::LocateRequest, limits: &Limits) -> Result<Self, BadField> {
        Self::checked(&request.bucket, KeyForm::from(request.key_form.as_ref()), limits)
    }

    /// What the bucket promises.
    pub fn mode(&self) -> BucketMode {
        BucketMode::of(&self.bucket)
    }

    fn checked(bucket: &str, form: KeyForm<'_>, limits: &Limits) -> Result<Self, BadField> {
        let bucket = check_bucket(bucket, limits)?.to_owned();
        let (field, len) = match form {
            KeyForm::Bytes(key) => ("key", key.len()),
            KeyForm::Text(text) => ("key_text", text.len()),
            KeyForm::Missing => ("key", 0),
        };
        check_key_len(field, len, limits)?;
        let (key, as_text) = match form {
            KeyForm::Bytes(key) => (key.clone(), false),
            KeyForm::Text(text) => (Bytes::copy_from_slice(text.as_bytes()), true),
            KeyForm::Missing => (Bytes::new(), false),
        };
        Ok(Self { bucket, key, as_text })
    }
}

/// The value of a Put. One that is not set is empty.
pub fn put_value(
    form: Option<v1::put_request::ValueForm>,
    limits: &Limits,
) -> Result<Bytes, BadField> {
    use v1::put_request::ValueForm;
    let (field, value) = match form {
        Some(ValueForm::Value(value)) => ("value", value),
        Some(ValueForm::ValueText(text)) => ("value_text", Bytes::from(text)),
        None => ("value", Bytes::new()),
    };
    let (len, limit) = (value.len(), limits.value_bytes);
    if len > limit {
        let why = format!("a value has at most {limit} bytes (limits.value_bytes)");
        let value = format!("{len} bytes long");
        return Err(BadField::client(field, "VALUE_TOO_LARGE", value, why).sized(len, limit));
    }
    Ok(value)
}

/// A request id: none, or 16 bytes.
pub fn request_id(raw: &[u8]) -> Result<Option<[u8; 16]>, BadField> {
    if raw.is_empty() {
        return Ok(None);
    }
    raw.try_into().map(Some).map_err(|_| BadField::request_id(raw.len()))
}

/// The name to use for this bucket: `default` for the empty one.
pub fn check_bucket<'a>(bucket: &'a str, limits: &Limits) -> Result<&'a str, BadField> {
    let (len, limit) = (bucket.len(), limits.bucket_bytes);
    let rule = || format!("a bucket's name has 1 to {limit} characters, all of a-z 0-9 . _ -");
    let bad = |value| BadField::client("bucket", "BAD_BUCKET", value, rule());
    if len > limit {
        let value = format!("{} ({len} bytes long)", quoted(bucket));
        return Err(bad(value).sized(len, limit));
    }
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if !bucket.bytes().all(allowed) {
        return Err(bad(quoted(bucket)));
    }
    Ok(if bucket.is_empty() { DEFAULT_BUCKET } else { bucket })
}

fn check_key_len(field: &'static str, len: usize, limits: &Limits) -> Result<(), BadField> {
    let limit = limits.key_bytes;
    let rule = format!("a key has 1 to {limit} bytes");
    if len == 0 {
        return Err(
            BadField::client(field, "EMPTY_KEY", "empty".to_owned(), rule).sized(len, limit)
        );
    }
    if len > limit {
        let value = format!("{len} bytes long");
        return Err(BadField::client(field, "KEY_TOO_LARGE", value, rule).sized(len, limit));
    }
    Ok(())
}

/// The key oneof of any request: each message has an enum of its own for it.
#[derive(Clone, Copy)]
enum KeyForm<'a> {
    Bytes(&'a Bytes),
    Text(&'a str),
    Missing,
}

macro_rules! key_form_of {
    ($($message:ident),+) => {$(
        impl<'a> From<Option<&'a v1::$message::KeyForm>> for KeyForm<'a> {
            fn from(form: Option<&'a v1::$message::KeyForm>) -> Self {
                match form {
                    Some(v1::$message::KeyForm::Key(key)) => Self::Bytes(key),
                    Some(v1::$message::KeyForm::KeyText(text)) => Self::Text(text),
                    None => Self::Missing,
                }
            }
        }
    )+};
}

key_form_of!(put_request, get_request, delete_request, locate_request);

#[cfg(test)]
mod tests;
