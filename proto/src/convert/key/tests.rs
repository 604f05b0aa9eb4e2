//! What a client's bucket, key, value and level may be, and what it is told if they are not.

use super::*;
use crate::convert::{BadField, level};
use crate::v1::put_request::{KeyForm, ValueForm};
use proptest::prelude::*;
use triad_replica::consistency::Level;

fn put(bucket: &str, key: impl Into<Option<KeyForm>>) -> Result<RecordKey, BadField> {
    let request = v1::PutRequest {
        bucket: bucket.to_owned(),
        key_form: key.into(),
        ..v1::PutRequest::default()
    };
    RecordKey::of_put(&request, &Limits::default())
}

fn text(key: &str) -> KeyForm {
    KeyForm::KeyText(key.to_owned())
}

fn bytes(len: usize) -> KeyForm {
    KeyForm::Key(vec![b'k'; len].into())
}

#[test]
fn a_key_as_text_is_the_key_of_its_utf8_bytes_and_wants_text_back() {
    let as_text = put("", text("grüße")).expect("valid");
    let as_bytes =
        put("", Some(KeyForm::Key(Bytes::from_static("grüße".as_bytes())))).expect("valid");
    assert_eq!((&as_text.bucket, &as_text.key), (&as_bytes.bucket, &as_bytes.key));
    assert_eq!(as_text.bucket, DEFAULT_BUCKET);
    assert!(as_text.as_text);
    assert!(!as_bytes.as_text);
}

#[test]
fn keys_have_1_to_4096_bytes() {
    assert!(put("", bytes(1)).is_ok());
    assert!(put("", bytes(4096)).is_ok());
    for (key, field) in [(None, "key"), (Some(bytes(0)), "key"), (Some(text("")), "key_text")] {
        let bad = put("", key).expect_err("empty");
        assert_eq!(
            (bad.field, bad.reason, bad.size, bad.limit),
            (field, "EMPTY_KEY", Some(0), Some(4096))
        );
        assert_eq!(bad.to_string(), format!("`{field}` is empty: a key has 1 to 4096 bytes"));
    }
    let bad = put("", bytes(5120)).expect_err("too long");
    assert_eq!((bad.reason, bad.size, bad.limit), ("KEY_TOO_LARGE", Some(5120), Some(4096)));
    assert_eq!(bad.to_string(), "`key` is 5120 bytes long: a key has 1 to 4096 bytes");
}

#[test]
fn the_limits_are_those_of_the_configuration() {
    let small = Limits { key_bytes: 3, bucket_bytes: 3, value_bytes: 3 };
    let request = v1::GetRequest {
        bucket: "abc".to_owned(),
        key_form: Some(v1::get_request::KeyForm::KeyText("abcd".to_owned())),
        ..v1::GetRequest::default()
    };
    assert_eq!(RecordKey::of_get(&request, &small).expect_err("too long").limit, Some(3));
    assert!(check_bucket("abcd", &small).is_err());
    assert_eq!(
        put_value(Some(ValueForm::ValueText("abc".to_owned())), &small),
        Ok(Bytes::from_static(b"abc"))
    );
    assert!(put_value(Some(ValueForm::ValueText("abcd".to_owned())), &small).is_err());
}

#[test]
fn all_requests_read_their_key_alike() {
    let limits = Limits::default();
    let get = v1::GetRequest {
        bucket: "b".to_owned(),
        key_form: Some(v1::get_request::KeyForm::KeyText("k".to_owned())),
        ..v1::GetRequest::default()
    };
    let delete = v1::DeleteRequest {
        bucket: "b".to_owned(),
        key_form: Some(v1::delete_request::KeyForm::Key(Bytes::from_static(b"k"))),
        ..v1::DeleteRequest::default()
    };
    let locate = v1::LocateRequest { bucket: "b".to_owned(), ..v1::LocateRequest::default() };
    assert_eq!(RecordKey::of_get(&get, &limits), put("b", text("k")));
    assert_eq!(RecordKey::of_delete(&delete, &limits), put("b", bytes(1)));
    assert_eq!(RecordKey::of_locate(&locate, &limits), put("b", None));
}

#[test]
fn the_beginning_of_a_bucket_name_is_its_mode() {
    assert_eq!(BucketMode::of("default"), BucketMode::Strict);
    assert_eq!(BucketMode::of("anything"), BucketMode::Strict);
    assert_eq!(BucketMode::of("my.any.bucket"), BucketMode::Strict);
    assert_eq!(BucketMode::of("any.carts"), BucketMode::Available);
    assert_eq!(BucketMode::of("lin.locks"), BucketMode::Linearizable);
    assert_eq!(put("lin.locks", text("k")).map(|key| key.mode()), Ok(BucketMode::Linearizable));
}

#[test]
fn a_bad_bucket_name_is_told_with_the_rule_and_without_its_control_characters() {
    for name in ["Upper", "with space", "a/b", "ünï", "nul\0", "line\nbreak"] {
        let bad = put(name, text("k")).expect_err("bad name");
        assert_eq!((bad.field, bad.reason), ("bucket", "BAD_BUCKET"));
        assert!(!bad.to_string().contains(['\0', '\n']), "{bad}");
    }
    assert!(put(&"b".repeat(128), text("k")).is_ok());
    let bad = put(&"b".repeat(100_000), text("k")).expect_err("too long");
    assert_eq!((bad.size, bad.limit), (Some(100_000), Some(128)));
    assert!(bad.to_string().len() < 200, "{bad}");
}

#[test]
fn a_value_may_be_empty_and_has_at_most_1_mib() {
    let limits = Limits::default();
    assert_eq!(put_value(None, &limits), Ok(Bytes::new()));
    assert!(put_value(Some(ValueForm::Value(vec![0; 1 << 20].into())), &limits).is_ok());
    let bad =
        put_value(Some(ValueForm::Value(vec![0; 2 << 20].into())), &limits).expect_err("too large");
    assert_eq!((bad.field, bad.reason), ("value", "VALUE_TOO_LARGE"));
    assert_eq!((bad.size, bad.limit), (Some(2 << 20), Some(1 << 20)));
}

#[test]
fn a_level_not_chosen_is_quorum_and_one_without_a_name_is_refused() {
    assert_eq!(level(0), Ok(Level::Quorum));
    for chosen in [Level::One, Level::Quorum, Level::All] {
        assert_eq!(level(v1::Level::from(chosen).into()), Ok(chosen));
    }
    let bad = level(9).expect_err("no such level");
    assert_eq!((bad.reason, bad.value.as_str()), ("BAD_LEVEL", "9"));
}

#[test]
fn a_request_id_has_16_bytes_or_is_left_out() {
    assert_eq!(request_id(&[]), Ok(None));
    assert_eq!(request_id(&[7; 16]), Ok(Some([7; 16])));
    let bad = request_id(&[7; 15]).expect_err("too short");
    assert_eq!((bad.reason, bad.size, bad.limit), ("BAD_REQUEST_ID", Some(15), Some(16)));
}

proptest! {
    #[test]
    fn a_name_is_accepted_exactly_if_it_is_made_of_allowed_characters(name in "[a-c0-2._A -]{0,6}") {
        let allowed = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
        prop_assert_eq!(check_bucket(&name, &Limits::default()).is_ok(), allowed);
    }
}
