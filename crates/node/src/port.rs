//! The server on the port that everybody can reach: how much HTTP/2 makes of what comes has an end.
//!
//! ```text
//!  pki::tls (who, how many, how much) -> HTTP/2 (here: how many calls, headers, resets) -> strangers -> services
//! ```
//!
//! What is a connection's due is bounded in [`pki::tls`]. Here it is what the protocol lets its other end ask for: calls
//! that are begun and dropped, headers without end, answers to what is wrong. A connection that goes beyond is told so
//! (`ENHANCE_YOUR_CALM`) and ends; the others notice nothing.

use crate::strangers;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Error, Server, server::Router},
};
use tower::layer::util::{Identity, Stack};

/// *Limit* of calls at once on one connection: another node's front door follows logs and tunnels through it.
const STREAMS_MAX: u32 = 1024;
/// *Limit* of the headers of one call. *Unit:* bytes.
const HEADERS_MAX: u32 = 16 << 10;
/// *Limit* of one HTTP/2 frame. *Unit:* bytes.
const FRAME_MAX: u32 = 16 << 10;
/// *Limit* of calls that a connection has dropped before anybody has looked at them. *Source:* CVE-2023-44487.
const DROPPED_MAX: usize = 20;
/// *Limit* of calls that had to be reset for what was wrong with them, in all of a connection's life; tonic has none of
/// its own. *Source:* CVE-2025-8671.
const WRONG_MAX: usize = 1024;
/// How long the other end may be silent before it is asked whether it is there, and before it is not.
const SILENCE: Duration = Duration::from_secs(5);
/// Streams that never end by themselves would hold the shutdown up.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Serves what comes until cancelled.
///
/// # Errors
/// When nothing can be accepted any more.
pub(crate) async fn serve(
    routes: Routes,
    listener: pki::tls::Listener,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let until = async move {
        cancel.cancelled().await;
        sleep(LAST_WORDS).await;
    };
    server(routes).serve_with_incoming_shutdown(listener, until).await
}

fn server(routes: Routes) -> Router<Stack<strangers::Layer, Identity>> {
    Server::builder()
        .http2_keepalive_interval(Some(SILENCE))
        .http2_keepalive_timeout(Some(SILENCE))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .max_frame_size(FRAME_MAX)
        .http2_max_pending_accept_reset_streams(Some(DROPPED_MAX))
        .http2_max_local_error_reset_streams(Some(WRONG_MAX))
        .layer(strangers::Layer::default())
        .add_routes(routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ClusterId, NodeId, Role};
    use pki::{
        Credentials, Expected, NodeKey, RootCa,
        tls::{Connector, Limits, Listener, bootstrap_connector, connector},
    };
    use proto::ca::{
        GetRootCaReply, GetRootCaRequest, IssueCertificateReply, IssueCertificateRequest,
        ca_client::CaClient,
        ca_server::{Ca, CaServer},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinSet,
        time::timeout,
    };
    use tonic::{Request, Response, Status, transport::Endpoint};

    /// Long enough for anything, on any machine.
    const SOON: Duration = Duration::from_secs(60);
    /// Who may send as much goes on for ever. *Unit:* bytes.
    const ENOUGH: usize = 16 << 20;

    struct Answers;

    #[tonic::async_trait]
    impl Ca for Answers {
        async fn get_root_ca(
            &self,
            _: Request<GetRootCaRequest>,
        ) -> Result<Response<GetRootCaReply>, Status> {
            Ok(Response::new(GetRootCaReply { pem: "x".repeat(2000) }))
        }

        async fn issue_certificate(
            &self,
            _: Request<IssueCertificateRequest>,
        ) -> Result<Response<IssueCertificateReply>, Status> {
            Err(Status::unimplemented("not asked for here"))
        }
    }

    /// A manager's port.
    struct Port {
        addr: String,
        stranger: Connector,
        worker: Connector,
        _serving: JoinSet<()>,
    }

    impl Port {
        async fn open() -> Self {
            let swarm = ClusterId(7);
            let ca = RootCa::generate(swarm).unwrap();
            let node = |id: u128, role: Role| {
                let key = NodeKey::generate().unwrap();
                let csr = key.csr_pem().unwrap();
                let chain = ca.sign_csr(&csr, NodeId(id), role, swarm, Duration::from_secs(3600)).unwrap();
                Credentials::in_memory(&key.pem(), &chain, ca.cert_pem()).unwrap()
            };
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let limits = Limits { stall: Duration::from_secs(1), ..Limits::for_descriptors(4096) };
            let listener = Listener::start_with(tcp, &node(1, Role::Manager), limits).unwrap();
            let addr = listener.local_addr().to_string();
            let mut serving = JoinSet::new();
            serving.spawn(async move {
                let routes = Routes::new(CaServer::new(Answers));
                serve(routes, listener, CancellationToken::new()).await.unwrap();
            });
            Self {
                addr,
                stranger: bootstrap_connector(ca.digest()),
                worker: connector(&node(2, Role::Worker), Expected::Member),
                _serving: serving,
            }
        }

        /// What a node asks before it joins.
        async fn is_asked(&self) {
            let asked = async {
                let endpoint = Endpoint::from_shared(format!("http://{}", self.addr)).unwrap();
                let channel = endpoint.connect_with_connector(self.stranger.clone()).await.unwrap();
                CaClient::new(channel).get_root_ca(GetRootCaRequest {}).await.unwrap()
            };
            let answer = timeout(SOON, asked).await.expect("an answer beside whatever goes on");
            assert_eq!(answer.into_inner().pem.len(), 2000);
        }
    }

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const ENHANCE_YOUR_CALM: u32 = 0xb;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A header as HPACK writes one that nobody has seen before.
    fn literal(name: &str, value: &str) -> Vec<u8> {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    }

    fn call() -> Vec<u8> {
        let path = "/rswarm.ca.v1.Ca/GetRootCa";
        let all = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        all.iter().flat_map(|(name, value)| literal(name, value)).collect()
    }

    /// Whatever fills a list of headers. 120 bytes a header.
    fn filling(bytes: usize) -> Vec<u8> {
        literal("a", &"x".repeat(116)).repeat(bytes / 120)
    }

    /// The number of the n-th call.
    fn number(n: u32) -> u32 {
        2 * n + 1
    }

    /// What an attacker says next, the n-th time.
    type Says = fn(u32) -> Vec<u8>;

    const CALLS_A_TIME: u32 = 50;

    fn calls(n: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
        (n * CALLS_A_TIME..(n + 1) * CALLS_A_TIME).flat_map(|n| each(number(n))).collect()
    }

    /// CVE-2023-44487.
    fn calls_and_drops(n: u32) -> Vec<u8> {
        let drop = |id| frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
        calls(n, |id| [frame(HEADERS, END_STREAM | END_HEADERS, id, &call()), drop(id)].concat())
    }

    /// CVE-2025-8671: what is wrong makes the other end drop the call.
    fn calls_that_go_wrong(n: u32) -> Vec<u8> {
        let wrong = [call(), literal("content-length", "none")].concat();
        calls(n, |id| frame(HEADERS, END_HEADERS, id, &wrong))
    }

    fn calls_without_end(n: u32) -> Vec<u8> {
        calls(n, |id| frame(HEADERS, END_HEADERS, id, &call()))
    }

    /// CVE-2024-27316.
    fn headers_without_end(n: u32) -> Vec<u8> {
        match n {
            0 => frame(HEADERS, 0, 1, &call()),
            _ => frame(CONTINUATION, 0, 1, &filling(16_000)),
        }
    }

    fn many_headers(n: u32) -> Vec<u8> {
        let (id, more) = (number(n), filling(16_000));
        let mut said = frame(HEADERS, END_STREAM, id, &call());
        (0..8).for_each(|_| said.extend(frame(CONTINUATION, 0, id, &more)));
        said.extend(frame(CONTINUATION, END_HEADERS, id, &more));
        said
    }

    fn settings(_: u32) -> Vec<u8> {
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).repeat(500)
    }

    fn pings(_: u32) -> Vec<u8> {
        frame(PING, 0, 0, &[7; 8]).repeat(500)
    }

    /// A message in crumbs, and more of it than anybody waits for.
    fn crumbs(n: u32) -> Vec<u8> {
        match n {
            0 => frame(HEADERS, END_HEADERS, 1, &call()),
            _ => frame(DATA, 0, 1, &[0]).repeat(500),
        }
    }

    #[derive(Debug)]
    struct Ended {
        sent: usize,
        /// Why, if the other end said so before the connection was gone.
        code: Option<u32>,
    }

    /// Speaks to a port until it does not listen any more. Who does not read leaves what he is told where it is.
    async fn attack(port: &Port, who: &Connector, reads: bool, says: Says) -> Ended {
        let io = timeout(SOON, who.connect(&port.addr)).await.unwrap().unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        let sending = async {
            let (mut sent, mut said) = (0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
            said.extend(frame(SETTINGS, 0, 0, &[]));
            for n in 0.. {
                if sent > ENOUGH || write.write_all(&said).await.is_err() {
                    break;
                }
                sent += said.len();
                said = says(n);
            }
            sent
        };
        let mut code = None;
        let reading = async {
            let mut head = [0; 9];
            while reads && read.read_exact(&mut head).await.is_ok() {
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                if head[3] == GOAWAY {
                    code = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
                }
            }
        };
        let both = async {
            tokio::pin!(reading);
            tokio::pin!(sending);
            let mut is_read = false;
            let sent = loop {
                tokio::select! {
                    () = &mut reading, if !is_read => is_read = true,
                    sent = &mut sending => break sent,
                }
            };
            if sent <= ENOUGH && !is_read {
                reading.await;
            }
            sent
        };
        let sent = timeout(SOON, both).await.expect("the connection ends, or takes all");
        Ended { sent, code }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_nodes_connection_that_asks_for_work_without_end_ends() {
        let port = Port::open().await;
        let attacks: [(&str, bool, Says); 7] = [
            ("calls that are dropped", true, calls_and_drops),
            ("calls that go wrong", true, calls_that_go_wrong),
            ("more calls than allowed", true, calls_without_end),
            ("headers without end", true, headers_without_end),
            ("many headers", true, many_headers),
            ("settings, and the answers not taken", false, settings),
            ("pings, and the answers not taken", false, pings),
        ];
        for (what, reads, says) in attacks {
            let ended = attack(&port, &port.worker, reads, says).await;
            assert!(ended.sent <= ENOUGH, "{what}: {ended:?}");
            if what.starts_with("calls") {
                assert!(ended.code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{what}: {ended:?}");
            }
            port.is_asked().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stranger_is_not_listened_to_for_long_whatever_he_says() {
        let port = Port::open().await;
        let attacks: [(&str, Says); 8] = [
            ("calls that are dropped", calls_and_drops),
            ("calls that go wrong", calls_that_go_wrong),
            ("more calls than allowed", calls_without_end),
            ("headers without end", headers_without_end),
            ("many headers", many_headers),
            ("settings", settings),
            ("pings", pings),
            ("crumbs", crumbs),
        ];
        for (what, says) in attacks {
            let ended = attack(&port, &port.stranger, true, says).await;
            assert!(ended.sent <= ENOUGH, "{what}: {ended:?}");
            port.is_asked().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_wants_to_join_is_answered_beside_all_of_them() {
        let port = std::sync::Arc::new(Port::open().await);
        let mut attackers = JoinSet::new();
        let attacks: [Says; 4] = [calls_and_drops, calls_without_end, settings, pings];
        for says in attacks {
            for is_node in [true, false] {
                let port = std::sync::Arc::clone(&port);
                attackers.spawn(async move {
                    loop {
                        let who = if is_node { &port.worker } else { &port.stranger };
                        attack(&port, who, true, says).await;
                    }
                });
            }
        }
        // A window of nothing, held open: the answer waits in it, and nobody else does.
        let mut held = port.worker.connect(&port.addr).await.unwrap();
        let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        said.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        said.extend((0..500).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, number(n), &call())));
        held.write_all(&said).await.unwrap();
        for _ in 0..10 {
            port.is_asked().await;
        }
        assert_eq!(attackers.len(), 8, "none of them has given up");
    }
}
