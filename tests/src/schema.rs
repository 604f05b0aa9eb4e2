//! Messages that nobody meant: made from the descriptors of an API, well-formed or broken, and sent as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tokio_stream::StreamExt;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use triad_fuzz::{Mutation, varint};

use crate::dice::Dice;

/// Messages in messages.
const DEPTH: usize = 7;
/// Entries of a list, at most.
const ENTRIES: u64 = 4;
/// Messages in one stream.
const STREAMED: u64 = 4;
/// How long the answer to one call is waited for. A stream that stays open is left then.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a single answer may take.
const ANSWER: Duration = Duration::from_mins(1);

/// Texts at which something could break.
const TEXTS: [&str; 16] = [
    "",
    "default",
    "any.bucket",
    "lin.bucket",
    "Capital and space",
    "ünicode \u{202e} \0",
    "127.0.0.1:1",
    "[::1]:70000",
    "://",
    "node1",
    "00112233445566778899aabbccddeeff",
    "0000000000000001.1",
    "1.7",
    "99999999999999999999.99999999999999999999",
    "leave-00112233-1",
    "%s%n{}{:?}",
];
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    3,
    63,
    64,
    1_000,
    65_535,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    u64::MAX >> 1,
    u64::MAX,
];
const LENGTHS: [usize; 10] = [0, 1, 8, 15, 16, 17, 32, 4_096, 4_097, 60_000];

/// A method, as it is called.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    input: String,
    client_streams: bool,
}

/// What an API consists of.
#[derive(Debug, Default)]
pub struct Schema {
    /// All its methods.
    pub methods: Vec<Method>,
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    fixed: BTreeMap<String, Vec<u8>>,
}

impl Schema {
    /// Reads descriptors; methods of `package` alone are called.
    pub fn read(descriptors: &[u8], package: &str) -> Self {
        let set = FileDescriptorSet::decode(descriptors).expect("the compiler's own descriptors");
        let mut schema = Self::default();
        for file in set.file {
            let prefix = format!(".{}", file.package());
            for message in &file.message_type {
                schema.learn(&prefix, message);
            }
            for one in &file.enum_type {
                schema.enums.insert(format!("{prefix}.{}", one.name()), one.clone());
            }
            for service in file.service.iter().filter(|_| file.package() == package) {
                schema.methods.extend(service.method.iter().map(|method| Method {
                    path: format!("/{package}.{}/{}", service.name(), method.name()),
                    input: method.input_type().to_owned(),
                    client_streams: method.client_streaming(),
                }));
            }
        }
        assert!(!schema.methods.is_empty(), "{package} has methods");
        schema
    }

    fn learn(&mut self, prefix: &str, message: &DescriptorProto) {
        let name = format!("{prefix}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.learn(&name, nested));
        for one in &message.enum_type {
            self.enums.insert(format!("{name}.{}", one.name()), one.clone());
        }
        self.messages.insert(name, message.clone());
    }

    /// Has every message of this name be this one, most of the time.
    pub fn fix(&mut self, message: &str, content: Vec<u8>) {
        assert!(self.messages.contains_key(message), "no message {message}");
        self.fixed.insert(message.to_owned(), content);
    }

    /// A message as the method takes it, more or less.
    pub fn request(&self, method: &Method, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.message(&method.input, dice, 0);
        if dice.roll(0..3) == 0 {
            let other = self.message(&method.input, dice, 0);
            for _ in 0..dice.roll(1..4) {
                Mutation::rolled(|below| dice.roll(0..below)).apply(&mut bytes, &other);
            }
        }
        bytes
    }

    fn message(&self, name: &str, dice: &mut Dice, depth: usize) -> Vec<u8> {
        if let Some(fixed) = self.fixed.get(name).filter(|_| dice.roll(0..8) > 0) {
            return fixed.clone();
        }
        let Some(message) = self.messages.get(name).filter(|_| depth < DEPTH) else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        for field in &message.field {
            let times = match field.label() {
                Label::Repeated => dice.roll(0..ENTRIES),
                _ => dice.roll(0..3).min(1),
            };
            for _ in 0..times {
                self.field(field, dice, depth, &mut bytes);
            }
        }
        bytes
    }

    fn field(
        &self,
        field: &FieldDescriptorProto,
        dice: &mut Dice,
        depth: usize,
        out: &mut Vec<u8>,
    ) {
        let tag = |wire: u64| varint(u64::from(field.number().unsigned_abs()) << 3 | wire);
        let delimited = |out: &mut Vec<u8>, content: &[u8]| {
            out.extend(tag(2));
            out.extend(varint(content.len() as u64));
            out.extend_from_slice(content);
        };
        match field.r#type() {
            Type::Message => {
                let content = self.message(field.type_name(), dice, depth + 1);
                delimited(out, &content);
            }
            Type::String => delimited(out, text(dice).as_bytes()),
            Type::Bytes => delimited(out, &content(dice)),
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                out.extend(tag(1));
                out.extend(dice.one_of(&NUMBERS).to_le_bytes());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                out.extend(tag(5));
                out.extend((dice.one_of(&NUMBERS) as u32).to_le_bytes());
            }
            Type::Enum => {
                let values = self.enums.get(field.type_name()).map_or(1, |one| one.value.len());
                out.extend(tag(0));
                out.extend(varint(dice.roll(0..values as u64 + 2)));
            }
            _ => {
                out.extend(tag(0));
                out.extend(varint(dice.one_of(&NUMBERS)));
            }
        }
    }
}

fn text(dice: &mut Dice) -> String {
    match dice.roll(0..20) {
        0 => "k".repeat(dice.roll(1..6_000) as usize),
        1 => format!("hostile/{}", dice.roll(0..1_000)),
        _ => dice.one_of(&TEXTS).to_owned(),
    }
}

fn content(dice: &mut Dice) -> Vec<u8> {
    let length = dice.one_of(&LENGTHS);
    let byte = dice.roll(0..256) as u8;
    (0..length).map(|at| byte.wrapping_mul(at as u8 | 1)).collect()
}

/// Calls a method with these bytes; a stream gets several messages and stays open. What became of it; an answer that does
/// not come at all is an error of the test.
pub async fn call(
    channel: &Channel,
    method: &Method,
    requests: Vec<Vec<u8>>,
) -> Result<(), Status> {
    let path = PathAndQuery::try_from(method.path.clone()).expect("a method has a path");
    let mut client = tonic::client::Grpc::new(channel.clone());
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut requests = requests.into_iter().map(Bytes::from);
    let answered = async {
        if method.client_streams {
            let stream = tokio_stream::iter(requests).chain(tokio_stream::pending());
            drain(client.streaming(Request::new(stream), path, Raw).await?.into_inner()).await
        } else {
            let request = Request::new(requests.next().unwrap_or_default());
            drain(client.server_streaming(request, path, Raw).await?.into_inner()).await
        }
    };
    let late = |_| panic!("{}: no answer within {ANSWER:?}", method.path);
    tokio::time::timeout(ANSWER, answered).await.unwrap_or_else(late)
}

/// Reads what comes, until it ends or nothing more comes.
async fn drain(mut answers: Streaming<Bytes>) -> Result<(), Status> {
    loop {
        match tokio::time::timeout(PATIENCE, answers.message()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(status)) => return Err(status),
        }
    }
}

/// How many messages a call of this method has.
pub fn messages_of(method: &Method, dice: &mut Dice) -> u64 {
    if method.client_streams { dice.roll(0..STREAMED + 1) } else { 1 }
}

/// Bytes as they are, in both directions.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length)))
    }
}
