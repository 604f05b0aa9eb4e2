//! Requests as any gRPC client could make them, right or wrong: the client library is too polite for some tests.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use triad_proto::v1;
use triad_proto::v1::kv_service_client::KvServiceClient;

/// A connection to a node.
pub async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .expect("the harness makes well-formed addresses");
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .connect()
        .await
        .expect("the node listens")
}

/// Reading and writing through such a connection.
pub type Kv = KvServiceClient<Channel>;

/// A put of a value, all else as it is by default.
pub fn put(key: &str, value: &str) -> v1::PutRequest {
    v1::PutRequest {
        key_form: Some(v1::put_request::KeyForm::KeyText(key.to_owned())),
        value_form: Some(v1::put_request::ValueForm::Value(Bytes::copy_from_slice(
            value.as_bytes(),
        ))),
        ..Default::default()
    }
}

/// A get, all else as it is by default.
pub fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest {
        key_form: Some(v1::get_request::KeyForm::KeyText(key.to_owned())),
        ..Default::default()
    }
}

/// A delete, all else as it is by default.
pub fn delete(key: &str) -> v1::DeleteRequest {
    v1::DeleteRequest {
        key_form: Some(v1::delete_request::KeyForm::KeyText(key.to_owned())),
        ..Default::default()
    }
}

/// The values of an answer as text.
pub fn texts(answer: &v1::GetResponse) -> Vec<String> {
    answer
        .siblings
        .iter()
        .map(|sibling| match &sibling.value_form {
            Some(v1::sibling::ValueForm::Value(bytes)) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            Some(v1::sibling::ValueForm::ValueText(text)) => text.clone(),
            None => String::new(),
        })
        .collect()
}

/// Holds a refusal against what it must say: code, reason, metadata and, in its message, all of `words`.
pub fn assert_refused(
    what: &str,
    status: &Status,
    code: Code,
    reason: &str,
    words: &[&str],
) -> HashMap<String, String> {
    assert_eq!(status.code(), code, "{what}: {status:?}");
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{what}: no ErrorInfo: {status:?}"));
    assert_eq!(info.reason, reason, "{what}: {status:?}");
    assert_eq!(info.domain, "triad", "{what}");
    for word in words {
        assert!(
            status.message().contains(word),
            "{what}: the message lacks {word:?}: {}",
            status.message()
        );
    }
    info.metadata
}
