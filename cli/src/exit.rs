//! How a command ends: the exit codes that scripts rely on, and the error that is told.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | any other error |
//! | 2 | wrong usage: arguments or configuration |
//! | 3 | the key has no value |
//! | 4 | a condition of the write does not hold |
//! | 5 | unavailable: no node, too few replicas, not ready, overloaded |
//! | 6 | the time was up |
//! | 7 | not known or not allowed |
//! | 8 | in doubt: a write may or may not have taken effect |

use std::collections::BTreeMap;
use std::process::ExitCode;

use tonic::Code;
use triad_client::Error;

/// The exit codes, fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Error = 1,
    Usage = 2,
    NotFound = 3,
    ConditionFailed = 4,
    Unavailable = 5,
    Deadline = 6,
    Denied = 7,
    InDoubt = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, in the form in which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// The gRPC code, or the one that says the same.
    pub(crate) code: Code,
    /// The server's reason; empty when the failure is the command's own.
    pub(crate) reason: String,
    /// For people: enough alone.
    pub(crate) message: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: Code, message: impl Into<String>) -> Self {
        let (reason, metadata) = (String::new(), BTreeMap::new());
        Self { exit, code, reason, message: message.into(), metadata }
    }

    /// Wrong arguments or configuration: nothing was done.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, Code::InvalidArgument, message)
    }

    /// Anything of this machine: files, sockets, signals.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, Code::Internal, message)
    }

    /// What to do about it, for those failures that everybody meets once.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match (self.exit, self.reason.as_str()) {
            (Exit::InDoubt, _) => {
                Some("the write may have taken effect: read the key before writing it again")
            }
            (Exit::Unavailable, "") => Some(
                "is a node running there? `triad dev` starts a cluster, --endpoints names another",
            ),
            (Exit::Unavailable, "NOT_JOINED") => {
                Some("`triad health` says what the node waits for")
            }
            (_, "SIBLING_LIMIT") => {
                Some("get the key, merge its values and put the result with --context")
            }
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Endpoint(_) => Exit::Usage,
            Error::Unavailable { .. } | Error::Overloaded { .. } => Exit::Unavailable,
            Error::DeadlineExceeded(_) => Exit::Deadline,
            Error::InDoubt(_) => Exit::InDoubt,
            Error::ConditionFailed(_) => Exit::ConditionFailed,
            Error::Denied(_) => Exit::Denied,
            Error::FailedPrecondition(detail) if detail.reason == "NOT_JOINED" => Exit::Unavailable,
            _ => Exit::Error,
        };
        let metadata = error.detail().map(|detail| detail.metadata.clone()).unwrap_or_default();
        let reason = error.reason().to_owned();
        Self { exit, code: error.code(), reason, message: error.to_string(), metadata }
    }
}

/// The canonical spelling of a gRPC code, as the specification has it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Request, Response, Status};
    use tonic_types::{ErrorDetails, StatusExt};
    use triad_client::Client;
    use triad_proto::v1;
    use triad_proto::v1::kv_service_server::{KvService, KvServiceServer};

    use super::*;

    /// A node that refuses everything.
    struct Refusing(Status);

    #[tonic::async_trait]
    impl KvService for Refusing {
        async fn put(
            &self,
            _: Request<v1::PutRequest>,
        ) -> Result<Response<v1::PutResponse>, Status> {
            Err(self.0.clone())
        }

        async fn get(
            &self,
            _: Request<v1::GetRequest>,
        ) -> Result<Response<v1::GetResponse>, Status> {
            Err(self.0.clone())
        }

        async fn delete(
            &self,
            _: Request<v1::DeleteRequest>,
        ) -> Result<Response<v1::DeleteResponse>, Status> {
            Err(self.0.clone())
        }
    }

    /// What the command line makes of a node's refusal of a Put.
    async fn refused(code: Code, reason: &str) -> Failure {
        let metadata = [("needed".to_owned(), "2".to_owned())];
        let details = ErrorDetails::with_error_info(reason, "triad", metadata);
        let node = Refusing(Status::with_error_details(code, "what happened", details));
        let incoming =
            tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(KvServiceServer::new(node));
        let client = Client::builder().endpoint(address).retries(0).connect_lazy().unwrap();
        tokio::select! {
            result = async { client.put("key", "value").await } => result.expect_err("the node refuses").into(),
            ended = server.serve_with_incoming(incoming) => panic!("the node ended: {ended:?}"),
        }
    }

    #[tokio::test]
    async fn each_refusal_ends_with_its_code() {
        for (code, reason, exit) in [
            (Code::InvalidArgument, "EMPTY_KEY", Exit::Error),
            (Code::Aborted, "VERSION_CONFLICT", Exit::ConditionFailed),
            (Code::AlreadyExists, "KEY_EXISTS", Exit::ConditionFailed),
            (Code::Unavailable, "QUORUM_NOT_MET", Exit::Unavailable),
            (Code::Unavailable, "SHARD_FROZEN", Exit::Unavailable),
            (Code::FailedPrecondition, "NOT_JOINED", Exit::Unavailable),
            (Code::FailedPrecondition, "WRONG_CLUSTER", Exit::Error),
            (Code::ResourceExhausted, "OVERLOADED", Exit::Unavailable),
            (Code::ResourceExhausted, "SIBLING_LIMIT", Exit::Error),
            (Code::PermissionDenied, "", Exit::Denied),
            (Code::Unauthenticated, "", Exit::Denied),
            (Code::Unavailable, "WRITE_IN_DOUBT", Exit::InDoubt),
            (Code::DeadlineExceeded, "WRITE_IN_DOUBT", Exit::InDoubt),
            (Code::Unimplemented, "UNSUPPORTED_MODE", Exit::Error),
            (Code::DataLoss, "", Exit::InDoubt),
        ] {
            let failure = refused(code, reason).await;
            assert_eq!(failure.exit, exit, "{code:?} {reason}");
            assert_eq!((failure.code, failure.reason.as_str()), (code, reason));
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_facts_and_an_endpoint_that_is_none_is_wrong_usage() {
        let failure = refused(Code::Unavailable, "QUORUM_NOT_MET").await;
        assert_eq!(failure.metadata["needed"], "2");
        assert_eq!(failure.message, "what happened");
        let wrong = Client::builder().endpoint("ftp://here").connect_lazy().unwrap_err();
        assert_eq!(Failure::from(wrong).exit, Exit::Usage);
    }
}
