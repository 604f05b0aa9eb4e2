//! `put`, `get`, `del`.

use std::ffi::OsStr;
use std::io::{self, Read};

use triad_client::{Context, Versioned};

use crate::args::{Common, ContextArg, DelArgs, GetArgs, KeyArgs, PutArgs};
use crate::exit::{Exit, Failure};
use crate::output::json::Subject;
use crate::output::{self, Console, json, text};

/// More is never read: no node accepts a message of this size, and a mistyped file name must not fill the memory.
const VALUE_BYTES_MAX: u64 = 8 << 20;

pub(super) async fn put(
    args: &PutArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let value = value(&args.value)?;
    let client = super::client(common.endpoints(), common.timeout())?;
    let mut request =
        client.put(args.key.bytes(), value).bucket(&args.key.bucket).level(args.level.into());
    if let Some(context) = &args.context {
        request = request.context(&seen(context));
    }
    if let Some(ttl) = args.ttl {
        request = request.ttl(ttl);
    }
    if let Some(id) = args.request_id {
        request = request.request_id(id.0);
    }
    let written = request.await?;
    console.result(&json::put(subject(&args.key), &written), || text::put(&written))?;
    Ok(Exit::Ok)
}

pub(super) async fn get(
    args: &GetArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let request = client.get(args.key.bytes()).bucket(&args.key.bucket).level(args.level.into());
    let read = request.await?;
    if console.is_json() {
        console.result(&json::get(subject(&args.key), &read), String::new)?;
    } else {
        print_values(args, &read)?;
    }
    Ok(if read.is_found() { Exit::Ok } else { Exit::NotFound })
}

/// The values go to stdout; whatever is said about them goes to stderr.
fn print_values(args: &GetArgs, read: &Versioned) -> Result<(), Failure> {
    for value in read.values() {
        output::data(value)?;
        if !args.raw {
            output::data(b"\n")?;
        }
    }
    if read.has_siblings() {
        output::talk(&text::siblings(read.siblings.len(), &json::context(&read.context)));
    }
    if !read.is_found() {
        let key = String::from_utf8_lossy(args.key.bytes()).into_owned();
        output::talk(&format!("not found: {} in bucket {}", key.escape_debug(), args.key.bucket));
    }
    if args.explain {
        output::talk(&text::explain(read));
    }
    Ok(())
}

pub(super) async fn del(
    args: &DelArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let mut request =
        client.delete(args.key.bytes()).bucket(&args.key.bucket).level(args.level.into());
    if let Some(context) = &args.context {
        request = request.context(&seen(context));
    }
    if let Some(id) = args.request_id {
        request = request.request_id(id.0);
    }
    let deleted = request.await?;
    console.result(&json::del(subject(&args.key), &deleted), || text::del(&deleted))?;
    Ok(Exit::Ok)
}

fn subject(key: &KeyArgs) -> Subject<'_> {
    Subject { bucket: &key.bucket, key: key.bytes() }
}

fn seen(context: &ContextArg) -> Context {
    Context::from_bytes(context.0.clone())
}

/// The value meant by the argument: itself, `-` for stdin, `@file` for a file's content.
fn value(argument: &OsStr) -> Result<Vec<u8>, Failure> {
    let bytes = argument.as_encoded_bytes();
    if bytes == b"-" {
        return read("stdin", io::stdin().lock());
    }
    // Splitting after an ASCII byte keeps both parts whole, whatever the encoding of names is.
    match argument.to_str().and_then(|text| text.strip_prefix('@')) {
        Some(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
            read(path, file)
        }
        None => Ok(bytes.to_vec()),
    }
}

fn read(name: &str, source: impl Read) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let result = source.take(VALUE_BYTES_MAX + 1).read_to_end(&mut value);
    result.map_err(|error| Failure::local(format!("cannot read {name}: {error}")))?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "value: {name} has more than the {VALUE_BYTES_MAX} bytes that any node takes"
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_argument_or_the_file_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, [0_u8, 255, b'\n']).unwrap();
        assert_eq!(value(OsStr::new("hello")).unwrap(), b"hello");
        assert_eq!(value(OsStr::new("")).unwrap(), b"");
        assert_eq!(value(OsStr::new(&format!("@{}", path.display()))).unwrap(), [0, 255, b'\n']);
        let missing = value(OsStr::new("@/nowhere/value")).unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
        assert!(missing.message.starts_with("cannot read /nowhere/value: "), "{}", missing.message);
    }

    #[test]
    fn reading_stops_at_what_a_node_would_take() {
        assert_eq!(
            read("stdin", io::repeat(7).take(VALUE_BYTES_MAX)).unwrap().len() as u64,
            VALUE_BYTES_MAX
        );
        assert_eq!(read("stdin", io::repeat(7)).unwrap_err().exit, Exit::Usage);
    }
}
