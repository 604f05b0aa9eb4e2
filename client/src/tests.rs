//! The client against nodes that do as they are told: where it sends, when it sends again, and what it reports.

mod fake;

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::tests::fake::{Fake, Step, closed_port, rude_server, status};
use crate::{Client, Context, Error, Level};

fn lazily(endpoints: &[String]) -> Client {
    Client::builder().endpoints(endpoints.iter().cloned()).connect_lazy().unwrap()
}

/// One that repeats by itself what is in doubt.
fn stubborn(endpoints: &[String]) -> Client {
    let builder = Client::builder().endpoints(endpoints.iter().cloned()).repeat_in_doubt(true);
    builder.connect_lazy().unwrap()
}

#[tokio::test]
async fn the_first_request_learns_the_route_and_the_second_goes_straight_to_a_member() {
    let (entry, member) = (Fake::start().await, Fake::start().await);
    entry.will([Step::Route(vec![member.address()])]);
    let client = Client::connect([entry.address()]).await.unwrap();

    client.put("k", "v").await.unwrap();
    client.get("k").await.unwrap();

    assert!(entry.requests()[0].want_route, "a cold cache asks");
    assert_eq!(entry.requests().len(), 1);
    assert_eq!(member.requests().len(), 1);
    assert!(!member.requests()[0].want_route, "a warm one does not");
}

#[tokio::test]
async fn a_request_carries_what_was_chosen() {
    let fake = Fake::start().await;
    let client = lazily(&[fake.address()]);
    client
        .put("k", "v")
        .bucket("b")
        .level(Level::All)
        .context(&Context::from_bytes("seen"))
        .deadline(Duration::from_secs(2))
        .await
        .unwrap();
    let request = &fake.requests()[0];
    assert_eq!(request.bucket, "b");
    assert_eq!(request.key, "k");
    assert_eq!(request.level, triad_proto::v1::Level::All);
    assert_eq!(request.context, "seen");
    let timeout = request.timeout.expect("the deadline travels");
    assert!(timeout <= Duration::from_secs(2) && timeout > Duration::from_secs(1), "{timeout:?}");
}

#[tokio::test]
async fn an_absent_key_is_no_error_and_brings_its_context() {
    let fake = Fake::start().await;
    let client = lazily(&[fake.address()]);
    let read = client.get("nothing").await.unwrap();
    assert!(!read.is_found());
    assert_eq!(read.value(), None);
    assert_eq!(read.context, Context::from_bytes("context"));
}

#[tokio::test]
async fn a_node_that_is_gone_costs_one_refused_connection_even_for_a_write() {
    let alive = Fake::start().await;
    let client = lazily(&[closed_port(), alive.address()]);
    for _ in 0..3 {
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(alive.requests().len(), 3);
}

#[tokio::test]
async fn a_dead_member_is_passed_over_for_the_next_and_the_route_is_asked_again() {
    let (entry, second) = (Fake::start().await, Fake::start().await);
    entry.will([Step::Route(vec![closed_port(), second.address()])]);
    let client = lazily(&[entry.address()]);
    client.put("k", "1").await.unwrap();
    client.put("k", "2").await.unwrap();
    assert_eq!(second.requests().len(), 1, "the second member, not the entry");
}

#[tokio::test]
async fn what_wrote_nothing_is_sent_again_elsewhere() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    first.will([Step::Fail(status(Code::Unavailable, "QUORUM_NOT_MET", &[("needed", "2")]))]);
    let client = lazily(&[first.address(), second.address()]);
    client.put("k", "v").await.unwrap();
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
}

#[tokio::test]
async fn retries_end_and_the_last_refusal_names_the_replicas() {
    let fake = Fake::start().await;
    let refusal = status(
        Code::Unavailable,
        "QUORUM_NOT_MET",
        &[("needed", "2"), ("acknowledged", "1"), ("replicas", "node1=ok,node2=unreachable")],
    );
    fake.always(Step::Fail(refusal));
    let client = lazily(&[fake.address()]);
    let began = Instant::now();
    let error = client.put("k", "v").await.unwrap_err();
    let Error::Unavailable { needed: 2, acknowledged: 1, replicas, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(replicas[1].node, "node2");
    assert_eq!(fake.requests().len(), 4, "one and three retries");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_short_deadline_ends_retries_with_what_is_known() {
    let fake = Fake::start().await;
    fake.always(Step::Fail(status(Code::Unavailable, "QUORUM_NOT_MET", &[])));
    let client = lazily(&[fake.address()]);
    let error = client.get("k").deadline(Duration::from_millis(120)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_write_in_doubt_is_repeated_under_its_id_and_as_a_repetition() {
    for (what, step) in [
        ("the server says so", Step::Fail(status(Code::Unavailable, "WRITE_IN_DOUBT", &[]))),
        ("no reason is given", Step::Fail(Status::unavailable("going away"))),
        ("no answer comes", Step::Hang),
    ] {
        let (first, second) = (Fake::start().await, Fake::start().await);
        first.will([step]);
        let client = stubborn(&[first.address(), second.address()]);
        client.put("k", "v").deadline(Duration::from_secs(2)).await.expect(what);
        let (first, second) = (first.requests(), second.requests());
        assert_eq!((first.len(), second.len()), (1, 1), "{what}");
        assert_eq!(first[0].request_id.len(), 16, "{what}");
        assert_eq!(first[0].request_id, second[0].request_id, "{what}");
        assert!(first[0].first_attempt && !second[0].first_attempt, "{what}");
    }
    let second = Fake::start().await;
    let client = stubborn(&[rude_server(), second.address()]);
    client.delete("k").await.expect("the connection broke, the repetition was answered");
    client.delete("k").await.expect("answered");
    let requests = second.requests();
    assert!(!requests[0].first_attempt && requests[1].first_attempt);
    assert_ne!(requests[0].request_id, requests[1].request_id, "each write has its own");
}

#[tokio::test]
async fn a_write_stays_in_doubt_whatever_its_repetitions_are_told() {
    let refusals = [
        status(Code::Unavailable, "QUORUM_NOT_MET", &[]),
        status(Code::ResourceExhausted, "SIBLING_LIMIT", &[]),
        status(Code::Unavailable, "WRITE_IN_DOUBT", &[]),
    ];
    for refusal in refusals {
        let fake = Fake::start().await;
        fake.will([Step::Fail(status(Code::Unavailable, "WRITE_IN_DOUBT", &[]))]);
        fake.always(Step::Fail(refusal));
        let client = stubborn(&[fake.address()]);
        let error = client.put("k", "v").deadline(Duration::from_millis(600)).await.unwrap_err();
        assert!(error.is_in_doubt(), "{error:?}");
        assert!(fake.requests().len() >= 2, "it was tried again");
    }
    // Nobody asked for repetitions: the first doubt is reported at once.
    let fake = Fake::start().await;
    fake.always(Step::Fail(status(Code::Unavailable, "WRITE_IN_DOUBT", &[])));
    assert!(lazily(&[fake.address()]).put("k", "v").await.unwrap_err().is_in_doubt());
    assert_eq!(fake.requests().len(), 1);
    assert!(fake.requests()[0].request_id.is_empty());
    // Nor are there any without retries.
    let fake = Fake::start().await;
    fake.always(Step::Fail(status(Code::Unavailable, "WRITE_IN_DOUBT", &[])));
    let client = Client::builder()
        .endpoint(fake.address())
        .retries(0)
        .repeat_in_doubt(true)
        .connect_lazy()
        .unwrap();
    assert!(client.put("k", "v").await.unwrap_err().is_in_doubt());
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_chosen_id_may_have_been_used_before() {
    let fake = Fake::start().await;
    let client = lazily(&[fake.address()]);
    client.put("k", "v").request_id([7; 16]).await.unwrap();
    let request = &fake.requests()[0];
    assert_eq!(request.request_id, &[7; 16][..]);
    assert!(!request.first_attempt);
}

#[tokio::test]
async fn a_client_repeats_one_request_in_ten_once_its_savings_are_gone() {
    let fake = Fake::start().await;
    fake.always(Step::Overloaded(Duration::from_millis(1)));
    let client = Client::builder().endpoint(fake.address()).retries(1).connect_lazy().unwrap();
    for _ in 0..60 {
        assert!(client.get("k").await.is_err());
    }
    let sent = fake.requests().len();
    assert!((80..=86).contains(&sent), "60 requests and 20 to 26 repetitions, not {sent}");
}

#[tokio::test]
async fn a_read_survives_a_node_that_hangs_and_one_that_hangs_up() {
    let (hanging, healthy) = (Fake::start().await, Fake::start().await);
    hanging.always(Step::Hang);
    for bad in [hanging.address(), rude_server()] {
        let client = lazily(&[bad, healthy.address()]);
        let began = Instant::now();
        client.get("k").deadline(Duration::from_secs(2)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
        // The bad node is put aside now: the next read does not wait for it.
        let began = Instant::now();
        client.get("k").deadline(Duration::from_secs(2)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn what_can_never_succeed_is_not_sent_again() {
    for (code, reason) in [
        (Code::InvalidArgument, "EMPTY_KEY"),
        (Code::Unimplemented, "UNSUPPORTED_MODE"),
        (Code::PermissionDenied, ""),
        (Code::ResourceExhausted, "SIBLING_LIMIT"),
        (Code::DataLoss, ""),
    ] {
        let (first, second) = (Fake::start().await, Fake::start().await);
        first.will([Step::Fail(status(code, reason, &[("field", "key")]))]);
        let client = lazily(&[first.address(), second.address()]);
        let error = client.get("k").await.unwrap_err();
        assert_eq!(error.code(), code);
        assert_eq!(error.reason(), reason);
        assert_eq!(error.metadata("field"), Some("key"));
        assert!(second.requests().is_empty(), "{code:?}");
    }
}

#[tokio::test]
async fn a_node_that_sheds_load_is_left_alone_as_long_as_it_asks() {
    let fake = Fake::start().await;
    fake.will([Step::Overloaded(Duration::from_millis(300))]);
    let client = lazily(&[fake.address()]);
    let began = Instant::now();
    client.put("k", "v").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn a_node_that_has_not_joined_sends_the_request_on_at_once() {
    let (fresh, joined) = (Fake::start().await, Fake::start().await);
    fresh.always(Step::Fail(status(Code::FailedPrecondition, "NOT_JOINED", &[])));
    let client = lazily(&[fresh.address(), joined.address()]);
    client.put("k", "v").await.unwrap();

    let alone = lazily(&[fresh.address()]);
    let error = alone.get("k").await.unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition(_)), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_names_the_addresses() {
    let (one, two) = (closed_port(), closed_port());
    let error = Client::connect([one.clone(), two.clone()]).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(text.contains(&one) && text.contains(&two) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn an_address_that_does_not_answer_the_handshake_ends_at_the_deadline() {
    // 192.0.2.0/24 is kept for documentation: packets to it vanish, or the network says that it cannot be reached.
    let client = lazily(&["192.0.2.1:7420".to_owned()]);
    let began = Instant::now();
    let error = client.put("k", "v").deadline(Duration::from_millis(500)).await.unwrap_err();
    assert!(!error.is_in_doubt(), "nothing was sent: {error:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_that_restarts_is_found_again() {
    let fake = Fake::start().await;
    let address = fake.address();
    let client = lazily(std::slice::from_ref(&address));
    client.put("k", "1").await.unwrap();
    fake.stop().await;
    assert!(client.get("k").deadline(Duration::from_millis(300)).await.is_err());
    let fake = Fake::start_at(&address).await;
    client.put("k", "2").await.unwrap();
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn tools_may_ask_one_node_and_no_other() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let client = lazily(&[one.address()]);
    let readiness = client.cluster().at(&two.address()).unwrap().readiness().await.unwrap();
    assert_eq!(readiness.reasons, [two.address()]);
    let error = client.cluster().at(&closed_port()).unwrap().readiness().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(client.cluster().at("no port:").is_err());
}

#[tokio::test]
async fn many_requests_at_once_share_the_client() {
    let fake = Fake::start().await;
    let client = lazily(&[fake.address()]);
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.put(format!("k{number}"), "v").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fake.requests().len(), 64);
    assert!(fake.connections() <= 2, "{}", fake.connections());
}

#[test]
fn a_client_without_endpoints_is_refused() {
    assert!(matches!(Client::builder().connect_lazy(), Err(Error::Endpoint(_))));
}
