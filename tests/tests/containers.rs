//! The cluster that users run: the shipped compose file, three containers, nodes killed and started.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use triad_client::{Client, Error, Level};
use triad_proto::test::v1::ListFailpointsRequest;
use triad_proto::test::v1::fault_service_client::FaultServiceClient;
use triad_proto::v1::{
    GetRequest, PutRequest, get_request, kv_service_client::KvServiceClient, put_request, sibling,
};
use triad_tests::containers::{Alone, Cluster};
use triad_tests::wait::until;

const COMPOSE_FILE: &str = "docker-compose.yml";

/// For a cluster of three to form, on a machine that also compiles.
const FORMED: Duration = Duration::from_secs(90);

/// A request's deadline, and how much later its answer may come.
const DEADLINE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(1);

fn started() -> Result<Option<Cluster>> {
    let Some(cluster) = Cluster::up(COMPOSE_FILE, 3)? else {
        return Ok(None);
    };
    cluster.wait_settled(1, 3, FORMED)?;
    Ok(Some(cluster))
}

/// A client that knows all nodes, also the dead ones.
async fn client(cluster: &Cluster) -> Result<Client> {
    Ok(Client::builder().endpoints(cluster.addresses()).deadline(DEADLINE).connect().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_put_at_one_node_is_read_at_every_other() -> Result<()> {
    let Some(cluster) = started()? else {
        return Ok(());
    };
    for node in 1..=3 {
        let key = format!("from node{node}");
        let mut writer =
            KvServiceClient::connect(format!("http://{}", cluster.address(node))).await?;
        let put = PutRequest {
            key_form: Some(put_request::KeyForm::KeyText(key.clone())),
            value_form: Some(put_request::ValueForm::ValueText("hello".to_owned())),
            ..PutRequest::default()
        };
        let reply = writer.put(put).await?.into_inner();
        let outcome = reply.outcome.context("an outcome")?;
        assert_eq!((outcome.needed, outcome.strict), (2, true));
        assert!(outcome.acknowledged >= 2 && !reply.context.is_empty());

        for other in 1..=3 {
            let mut reader =
                KvServiceClient::connect(format!("http://{}", cluster.address(other))).await?;
            let get = GetRequest {
                key_form: Some(get_request::KeyForm::KeyText(key.clone())),
                ..GetRequest::default()
            };
            let reply = reader.get(get).await?.into_inner();
            let values: Vec<_> = reply.siblings.into_iter().map(|s| s.value_form).collect();
            assert_eq!(
                values,
                [Some(sibling::ValueForm::ValueText("hello".to_owned()))],
                "at node{other}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_aware_client_on_the_host_reaches_every_node() -> Result<()> {
    let Some(cluster) = started()? else {
        return Ok(());
    };
    let client = Client::connect([cluster.address(2)]).await?;
    let nodes = client.cluster().list_nodes().await?;
    let mut advertised: Vec<String> = nodes.into_iter().map(|node| node.client_address).collect();
    advertised.sort_unstable();
    let mut published = cluster.addresses();
    published.sort_unstable();
    assert_eq!(advertised, published);
    for address in advertised {
        Client::connect([address]).await?.put("reached", "yes").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_killed_stops_nothing_but_all() -> Result<()> {
    let Some(cluster) = started()? else {
        return Ok(());
    };
    let client = client(&cluster).await?;
    client.put("before", "kept").await?;
    cluster.kill(2)?;

    // The first request may meet the dead connection; the client goes on to another node by itself.
    client.put("after", "written").await?;
    assert_eq!(client.get("before").await?.value().map(|v| &v[..]), Some(&b"kept"[..]));
    assert_eq!(client.get("after").await?.value().map(|v| &v[..]), Some(&b"written"[..]));
    client.put("alone", "one").level(Level::One).await?;
    assert!(client.get("alone").level(Level::One).await?.is_found());

    let refused = client
        .put("everywhere", "no")
        .level(Level::All)
        .await
        .expect_err("ALL needs the dead node");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert!(refused.to_string().contains("node2"), "the message alone must be enough: {refused}");
    assert!(
        refused.metadata("replicas").is_some_and(|replicas| replicas.contains("node2=")),
        "{refused:?}"
    );

    cluster.start(2)?;
    cluster.wait_settled(1, 3, FORMED)?;
    client.put("everywhere", "yes").level(Level::All).await?;
    Ok(())
}

/// Asks until the answer is a refusal, and holds each answer to the deadline.
async fn refused<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Result<Error> {
    let start = Instant::now();
    let answer = ask().await;
    anyhow::ensure!(start.elapsed() < DEADLINE + SLACK, "answered after {:?}", start.elapsed());
    answer.err().context("answered without a majority")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_killed_refuse_quorum_in_time_and_lose_nothing() -> Result<()> {
    let Some(cluster) = started()? else {
        return Ok(());
    };
    let before = client(&cluster).await?;
    for number in 0..100_u32 {
        before.put(format!("key {number}"), number.to_be_bytes().to_vec()).await?;
    }
    cluster.kill_all([1, 3])?;

    let left = Client::builder().endpoint(cluster.address(2)).deadline(DEADLINE).connect().await?;
    let read = refused(async || left.get("key 7").await).await?;
    assert_eq!(read.code(), tonic::Code::Unavailable, "{read}");
    let write = refused(async || left.put("key 7", "changed").await).await?;
    assert_eq!(write.code(), tonic::Code::Unavailable, "{write}");
    assert!(left.get("key 8").level(Level::One).await?.is_found());

    cluster.start(1)?;
    cluster.start(3)?;
    cluster.wait_settled(2, 3, FORMED)?;
    let after = client(&cluster).await?;
    for number in 0..100_u32 {
        let found = after.get(format!("key {number}")).await?;
        let expected = number.to_be_bytes();
        let in_doubt = number == 7 && found.values().any(|value| value == "changed");
        assert!(
            in_doubt || found.values().any(|value| value[..] == expected),
            "key {number}: {found:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_node_cleanly_and_its_data_stays() -> Result<()> {
    let Some(cluster) = started()? else {
        return Ok(());
    };
    let client = client(&cluster).await?;
    client.put("kept", "through stop").level(Level::All).await?;
    for node in 1..=3 {
        assert_eq!(cluster.stop(node)?, 0, "node{node} ends with exit code 0 on SIGTERM");
    }
    for node in 1..=3 {
        cluster.start(node)?;
    }
    cluster.wait_settled(3, 3, FORMED)?;
    assert_eq!(client.get("kept").await?.value().map(|v| &v[..]), Some(&b"through stop"[..]));
    Ok(())
}

/// The answer of the admin socket to an ordinary probe.
async fn version(address: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = "GET /version HTTP/1.1\r\nhost: triad\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.contains(" 200 "), "{answer:?}");
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_image_for_tests_has_faults_on_demand() -> Result<()> {
    for testing in [false, true] {
        let Some(node) = Alone::run(testing)? else {
            return Ok(());
        };
        let address = node.admin_address();
        until("the admin socket answers", FORMED, || version(address)).await;
        // Where nobody speaks HTTP/2 not even the connection may come about.
        let asked = async {
            let mut service = FaultServiceClient::connect(format!("http://{address}")).await?;
            anyhow::Ok(service.list_failpoints(ListFailpointsRequest {}).await?.into_inner())
        };
        let answered = asked.await;
        assert_eq!(answered.is_ok(), testing, "{answered:?}");
        if let Ok(listed) = answered {
            assert!(listed.failpoints.iter().any(|one| one.name == "move.fence"), "{listed:?}");
        }
    }
    Ok(())
}
