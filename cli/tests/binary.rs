//! The binary as scripts meet it: what is on stdout, what on stderr, and how it ends. The node is a fake one that gives
//! fixed answers; whole clusters are tested elsewhere.

// clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use triad_proto::v1;
use triad_proto::v1::kv_service_server::{KvService, KvServiceServer};

/// Knows three keys: `one` has a value, `two` has siblings, `bytes` is no text. It refuses to write `doubt`.
#[derive(Clone, Default)]
struct FakeNode {
    puts: Arc<Mutex<Vec<v1::PutRequest>>>,
}

fn values(key: &[u8]) -> Vec<&'static [u8]> {
    match key {
        b"one" => vec![b"hello"],
        b"two" => vec![b"left", b"right"],
        b"bytes" => vec![&[0, 255, 10]],
        _ => vec![],
    }
}

#[tonic::async_trait]
impl KvService for FakeNode {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let request = request.into_inner();
        if request.key_form == Some(v1::put_request::KeyForm::Key(b"doubt".to_vec().into())) {
            let metadata = [("replicas".to_owned(), "node1=ok,node2=timeout".to_owned())];
            let details = ErrorDetails::with_error_info("WRITE_IN_DOUBT", "triad", metadata);
            let message = "1 of 2 replicas answered";
            return Err(Status::with_error_details(Code::DeadlineExceeded, message, details));
        }
        self.puts.lock().unwrap().push(request);
        let context = b"seen".to_vec().into();
        Ok(Response::new(v1::PutResponse {
            context,
            dot: "00000000000000aa.1".into(),
            ..Default::default()
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let Some(v1::get_request::KeyForm::Key(key)) = request.into_inner().key_form else {
            return Err(Status::invalid_argument("no key"));
        };
        let sibling = |value: &'static [u8]| v1::Sibling {
            value_form: Some(v1::sibling::ValueForm::Value(value.into())),
            ..Default::default()
        };
        let siblings = values(&key).into_iter().map(sibling).collect();
        let context = b"seen".to_vec().into();
        Ok(Response::new(v1::GetResponse { siblings, context, ..Default::default() }))
    }

    async fn delete(
        &self,
        _: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        Ok(Response::new(v1::DeleteResponse::default()))
    }
}

/// A running fake node.
struct Fake {
    node: FakeNode,
    address: SocketAddr,
    _serving: JoinHandle<()>,
}

fn start() -> Fake {
    let node = FakeNode::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let service = KvServiceServer::new(node.clone());
    let serving = tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    Fake { node, address, _serving: serving }
}

impl Fake {
    async fn triad(&self, line: &str, stdin: &[u8]) -> Ended {
        let endpoint = self.address.to_string();
        triad(&format!("{line} --endpoints {endpoint}"), stdin.to_vec()).await
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn error(&self) -> Value {
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:?}");
        let value: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        value["error"].clone()
    }
}

/// Runs the binary with an environment that has nothing of Triad in it.
async fn triad(line: &str, stdin: Vec<u8>) -> Ended {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let run = move || -> std::io::Result<Output> {
        use std::io::Write;
        let mut command = Command::new(env!("CARGO_BIN_EXE_triad"));
        command.args(arguments).env_remove("TRIAD_ENDPOINTS").env_remove("TRIAD_CONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // Most commands do not read it, and may be gone before it is written.
        let _ = child.stdin.take().expect("it is piped").write_all(&stdin);
        child.wait_with_output()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

#[tokio::test]
async fn get_prints_the_value_and_nothing_else_on_stdout() {
    let fake = start();
    let got = fake.triad("get one", b"").await;
    assert_eq!(
        (got.code, got.stdout.as_slice(), got.stderr.as_str()),
        (0, b"hello\n".as_slice(), "")
    );
    let raw = fake.triad("get bytes --raw", b"").await;
    assert_eq!((raw.code, raw.stdout.as_slice()), (0, &[0_u8, 255, 10][..]));
    let json = fake.triad("get bytes -o json", b"").await.json();
    assert_eq!(json["siblings"][0]["value_base64"], "AP8K");
}

#[tokio::test]
async fn get_of_an_absent_key_ends_with_3() {
    let fake = start();
    let text = fake.triad("get none", b"").await;
    assert_eq!((text.code, text.stdout.as_slice()), (3, b"".as_slice()));
    assert!(text.stderr.contains("not found: none"), "{text:?}");
    let json = fake.triad("get none -o json", b"").await;
    assert_eq!((json.code, json.stderr.as_str()), (3, ""));
    assert_eq!(
        (&json.json()["found"], &json.json()["siblings"]),
        (&Value::Bool(false), &Value::Array(vec![]))
    );
}

#[tokio::test]
async fn siblings_are_all_printed_and_the_way_to_merge_them_is_told() {
    let fake = start();
    let got = fake.triad("get two", b"").await;
    assert_eq!((got.code, got.stdout.as_slice()), (0, b"left\nright\n".as_slice()));
    assert!(
        got.stderr.contains("2 siblings") && got.stderr.contains("--context c2Vlbg=="),
        "{got:?}"
    );
}

#[tokio::test]
async fn put_takes_the_value_from_its_argument_stdin_or_a_file_and_the_context_in_base64() {
    let fake = start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("value");
    std::fs::write(&file, b"from a file").unwrap();
    let lines = [
        "put key plain --level all".to_owned(),
        "put key - --context c2Vlbg==".to_owned(),
        format!("put key @{} -b users", file.display()),
    ];
    for line in &lines {
        let put = fake.triad(&format!("{line} -o json"), b"from stdin").await;
        assert_eq!((put.code, &put.json()["context"]), (0, &Value::from("c2Vlbg==")), "{put:?}");
    }
    let puts = fake.node.puts.lock().unwrap();
    let value = |put: &v1::PutRequest| match &put.value_form {
        Some(v1::put_request::ValueForm::Value(bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        puts.iter().map(value).collect::<Vec<_>>(),
        [b"plain".to_vec(), b"from stdin".to_vec(), b"from a file".to_vec()]
    );
    assert_eq!((puts[0].level(), puts[1].level()), (v1::Level::All, v1::Level::Quorum));
    assert_eq!(
        (puts[0].context.as_ref(), puts[1].context.as_ref()),
        (b"".as_slice(), b"seen".as_slice())
    );
    assert_eq!((puts[1].bucket.as_str(), puts[2].bucket.as_str()), ("default", "users"));
}

#[tokio::test]
async fn a_write_in_doubt_ends_with_8_and_says_what_to_do() {
    let fake = start();
    let text = fake.triad("put doubt x", b"").await;
    assert_eq!((text.code, text.stdout.as_slice()), (8, b"".as_slice()));
    assert!(
        text.stderr.starts_with("error: 1 of 2 replicas answered (WRITE_IN_DOUBT)\ntry: "),
        "{text:?}"
    );
    let error = fake.triad("put doubt x -o json", b"").await.error();
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&"DEADLINE_EXCEEDED".into(), &"WRITE_IN_DOUBT".into())
    );
    assert_eq!(error["metadata"]["replicas"], "node1=ok,node2=timeout");
}

#[tokio::test]
async fn where_nobody_listens_commands_end_with_5_and_wait_with_6() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    for command in ["get key", "status", "health", "ring", "node ls"] {
        let line = format!("{command} -o json --timeout 500ms --endpoints {address}");
        let ended = triad(&line, vec![]).await;
        assert_eq!((ended.code, ended.stdout.len()), (5, 0), "{ended:?}");
        let message = ended.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&address.to_string()), "{message}");
    }
    let line = format!("wait --nodes 3 --settled --timeout 500ms -o json --endpoints {address}");
    let ended = triad(&line, vec![]).await;
    assert_eq!(ended.code, 6, "{ended:?}");
    assert_eq!(ended.error()["code"], "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn wrong_usage_ends_with_2_also_as_json() {
    let text = triad("put key", vec![]).await;
    assert_eq!((text.code, text.stdout.len()), (2, 0));
    let json = triad("put key -o json", vec![]).await;
    assert_eq!((json.code, &json.error()["code"]), (2, &Value::from("INVALID_ARGUMENT")));
    let endpoint = triad("get key --endpoints ftp://here -o json", vec![]).await;
    assert_eq!(endpoint.code, 2, "{endpoint:?}");
    assert_eq!(triad("--version", vec![]).await.code, 0);
}

#[tokio::test]
async fn config_is_shown_with_its_origins_and_checked_with_suggestions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("triad.toml");
    std::fs::write(&path, "[limits]\nstreams = 64\n").unwrap();
    let shown =
        triad(&format!("config show -o json --config {} --name node1", path.display()), vec![])
            .await;
    let values = shown.json()["values"].as_array().unwrap().clone();
    let origin =
        |key: &str| values.iter().find(|value| value["key"] == key).unwrap()["origin"].clone();
    assert_eq!(
        ["limits.streams", "node.name", "cluster.shards"].map(origin),
        ["file", "flag", "default"]
    );

    std::fs::write(&path, "[limits]\nstream = 64\n").unwrap();
    for command in ["config check", "server --check", "server"] {
        let ended = triad(&format!("{command} --config {}", path.display()), vec![]).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("did you mean limits.streams?"), "{ended:?}");
    }
    std::fs::write(&path, "").unwrap();
    assert_eq!(triad(&format!("config check --config {}", path.display()), vec![]).await.code, 0);
}
