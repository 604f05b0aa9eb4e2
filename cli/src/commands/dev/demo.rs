//! A Put and a Get, shown with what they met: the shortest proof that the cluster works.

use serde::{Serialize, Serializer};
use triad_client::{Client, Versioned, Written};

use crate::exit::Failure;
use crate::output::json::{self, Subject};
use crate::output::text;

const BUCKET: &str = "default";
const KEY: &str = "greeting";
const VALUE: &str = "hello";

/// What was shown.
pub(super) struct Shown {
    written: Written,
    read: Versioned,
    text: String,
}

impl Shown {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Both<'a> {
            put: json::Write<'a>,
            get: json::Read<'a>,
        }
        let subject = Subject { bucket: BUCKET, key: KEY.as_bytes() };
        Both { put: json::put(subject, &self.written), get: json::get(subject, &self.read) }
            .serialize(serializer)
    }
}

/// Writes by the first node and reads by the last: what one took in, another gives back.
pub(super) async fn run(endpoints: &[String]) -> Result<Shown, Failure> {
    let client =
        |endpoint: Option<&String>| Client::builder().endpoints(endpoint.cloned()).connect_lazy();
    let written = client(endpoints.first())?.put(KEY, VALUE).bucket(BUCKET).await?;
    let read = client(endpoints.last())?.get(KEY).bucket(BUCKET).await?;
    if read.value().is_none_or(|value| value != VALUE.as_bytes()) {
        return Err(Failure::local(format!("the demo put {VALUE:?} but got {:?}", read.siblings)));
    }
    let text = format!(
        "\n$ triad put {KEY} {VALUE}\n{}\n$ triad get {KEY} --explain\n{VALUE}\n{}\n",
        text::put(&written).trim_end(),
        text::explain(&read)
    );
    Ok(Shown { written, read, text })
}
