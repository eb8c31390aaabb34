//! Clients that behave badly: what each is told, and that others are answered beside them.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on may panic, in its helpers too; its modules have no outside"
)]

mod fake;
use fake::Door;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Sends bytes and returns the first line of the answer; empty if there is none.
async fn first_line(
    mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
) -> String {
    // Who is refused while it still sends cannot send the rest.
    io.write_all(bytes).await.ok();
    let mut answer = vec![0; 4096];
    let read = timeout(SOON, io.read(&mut answer)).await.expect("an answer or the end").unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

impl Door {
    async fn says(&self, bytes: &[u8]) -> String {
        first_line(UnixStream::connect(&self.socket).await.unwrap(), bytes).await
    }
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /secrets/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_heads_make_room_for_whole_ones() {
    let door = Door::open().await;
    let mut halves = Vec::new();
    for _ in 0..300 {
        let mut half = UnixStream::connect(&door.socket).await.unwrap();
        half.write_all(b"GET /_ping HTTP/1.1\r\nA").await.ok();
        halves.push(half);
    }
    assert_eq!(door.says(PING).await, "HTTP/1.1 200 OK");
    // The door of these tests has 64 seats.
    for half in &mut halves[..200] {
        let read = timeout(SOON, half.read(&mut [0; 64])).await.expect("to be closed");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_not_cut_for_newcomers() {
    let door = Door::of_swarm().await;
    let body = br#"{"Name":"late","Data":"eA=="}"#;
    let request = post(&format!("Content-Length: {}\r\n", body.len()), body);
    let (begun, rest) = request.split_at(request.len() - 5);
    let mut slow = UnixStream::connect(&door.socket).await.unwrap();
    slow.write_all(begun).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        // Answered once, and kept open.
        let mut other = UnixStream::connect(&door.socket).await.unwrap();
        other.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let read = timeout(SOON, other.read(&mut [0; 512])).await.expect("an answer").unwrap();
        assert!(read > 0);
        idle.push(other);
    }
    assert_eq!(first_line(slow, rest).await, "HTTP/1.1 201 Created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_or_means_two_things_is_refused() {
    let door = Door::of_swarm().await;
    let many: String = (0..10_000).map(|n| format!("A{n}: x\r\n")).collect();
    let long = "x".repeat(1_000_000);
    let heads = [
        (format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        (format!("GET /_ping HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"), "431"),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), ""),
        ("GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n".into(), "400"),
    ];
    for (head, code) in heads {
        let said = door.says(head.as_bytes()).await;
        // A client that still sends when it is refused may find the connection gone instead of the answer.
        assert!(said.is_empty() || said.contains(code) || said.contains("400"), "{code}: {said}");
    }
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let nested = [b"{\"a\":".repeat(5000), b"1".to_vec(), vec![b'}'; 5000]].concat();
    let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    let length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
    let bodies = [
        (post(both, b"0\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\n\r\n"), "400"),
        (post("Content-Length: 4\r\nContent-Length: 5\r\n", b"abcde"), "400"),
        (post("Content-Length: -1\r\n", b""), "400"),
        (post("Content-Length: 9223372036854775807\r\n", b"{}"), "413"),
        (post("Content-Length: 9000000\r\n", &[b' '; 9_000_000]), "413"),
        (post(&length(&deep), &deep), "400"),
        (post(&length(&nested), &nested), "400"),
    ];
    for (request, code) in bodies {
        let said = door.says(&request).await;
        assert!(said.contains(code), "{code}: {said:?}");
        assert_eq!(door.says(PING).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_while_it_sends_can_send_all_and_is_told_why() {
    let door = Door::open().await;
    let mut client = UnixStream::connect(&door.socket).await.unwrap();
    let context = vec![b'x'; 32 << 20];
    let head = format!(
        "POST /build?platform=no/such/platform/at/all HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        context.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let sent = timeout(SOON, client.write_all(&context)).await.expect("somebody reads it");
    assert!(sent.is_ok(), "{sent:?}");
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.expect("an answer and the end").unwrap();
    assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    assert!(answer.contains("message"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_is_not_answered_over_tcp() {
    let door = Door::open().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let front = door.front.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move { front.serve(docker_api::server::Listener::Tcp(tcp)).await });
    let get = |headers: &str| format!("GET /version HTTP/1.1\r\nHost: rebound.example\r\n{headers}\r\n");
    let said = async |headers: &str| {
        first_line(TcpStream::connect(addr).await.unwrap(), get(headers).as_bytes()).await
    };
    assert_eq!(said("").await, "HTTP/1.1 200 OK");
    assert_eq!(said("Origin: http://rebound.example\r\n").await, "HTTP/1.1 403 Forbidden");
    assert_eq!(said("Sec-Fetch-Site: same-origin\r\n").await, "HTTP/1.1 403 Forbidden");
    // Programs on this host that pass a page's request on (a web interface) may do so.
    assert_eq!(door.says(get("Origin: http://ui.example\r\n").as_bytes()).await, "HTTP/1.1 200 OK");
}

/// Answers that go on for long end with the rights of who asked; so does what he goes on sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_still_being_sent_ends_with_the_rights_of_who_sends_it() {
    let door = Door::of_swarm().await;
    door.world.lock().unwrap().user = Some(model::PersonRole::Admin);
    let half = post("Authorization: Bearer ann\r\nContent-Length: 100\r\n", b"{\"Name\":");
    let io = UnixStream::connect(&door.socket).await.unwrap();
    let mut answer = JoinSet::new();
    let asking = answer.spawn(async move { first_line(io, &half).await });
    let asked = async {
        while door.world.lock().unwrap().asked_who == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, asked).await.expect("somebody to ask who sends it");
    assert!(!asking.is_finished(), "an admin may take his time");
    door.world.lock().unwrap().user = None;
    assert_eq!(answer.join_next().await.unwrap().unwrap(), "HTTP/1.1 403 Forbidden");
}

impl Door {
    /// Opens a TCP port beside the socket, for as long as the set is held.
    async fn port(&self) -> (std::net::SocketAddr, JoinSet<()>) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let front = self.front.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move { front.serve(docker_api::server::Listener::Tcp(tcp)).await });
        (addr, serving)
    }
}

/// What a body is wrapped in has an end as well: it is no part of the body, whose length is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_around_a_chunked_body_has_an_end() {
    let door = Door::of_swarm().await;
    let (addr, _serving) = door.port().await;
    let much = "x".repeat(4 << 20);
    let words = [
        ("a long extension of a chunk", format!("2;{much}\r\n{{}}\r\n0\r\n\r\n")),
        ("an extension at each of many chunks", "1;extended=so\r\n \r\n".repeat(200_000)),
        ("a long trailer", format!("2\r\n{{}}\r\n0\r\nA: {much}\r\n\r\n")),
        ("many trailers", format!("2\r\n{{}}\r\n0\r\n{}\r\n", "A: x\r\n".repeat(200_000))),
        ("a length that goes on", format!("{}2\r\n{{}}\r\n0\r\n\r\n", "0".repeat(4 << 20))),
        ("a length beyond all numbers", format!("{}\r\n", "f".repeat(4 << 20))),
    ];
    for (what, body) in words {
        let request = post("Transfer-Encoding: chunked\r\n", body.as_bytes());
        for said in
            [door.says(&request).await, first_line(TcpStream::connect(addr).await.unwrap(), &request).await]
        {
            assert!(said.is_empty() || said.contains(" 400 "), "{what}: {said}");
        }
        assert_eq!(door.says(PING).await, "HTTP/1.1 200 OK", "{what}");
    }
    assert_eq!(door.world.lock().unwrap().tables.secrets.len(), 0, "nothing was made of any of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_on_and_on_and_takes_no_answers_is_not_listened_to() {
    let door = Door::open().await;
    let (addr, _serving) = door.port().await;
    let question = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
    let flood = question.repeat(1000);
    for is_tcp in [true, false] {
        let mut io: Box<dyn tokio::io::AsyncWrite + Unpin> = if is_tcp {
            Box::new(TcpStream::connect(addr).await.unwrap())
        } else {
            Box::new(UnixStream::connect(&door.socket).await.unwrap())
        };
        let mut sent = 0;
        while let Ok(written) = timeout(Duration::from_secs(2), io.write(&flood)).await {
            sent += written.unwrap();
            assert!(sent < 64 << 20, "it goes on for ever");
        }
        assert_eq!(door.says(PING).await, "HTTP/1.1 200 OK");
    }
}

/// Each has a request under way, and nothing comes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_come_shut_out_nobody_at_another_address() {
    let door = Door::of_swarm().await;
    let (addr, _serving) = door.port().await;
    let half = post("Content-Length: 100\r\n", b"{");
    let mut halves = Vec::new();
    for _ in 0..200 {
        let mut io = TcpStream::connect(addr).await.unwrap();
        io.write_all(&half).await.ok();
        halves.push(io);
    }
    assert_eq!(door.says(PING).await, "HTTP/1.1 200 OK");
    let neighbour = tokio::net::TcpSocket::new_v4().unwrap();
    neighbour.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let neighbour = neighbour.connect(addr).await.unwrap();
    assert_eq!(first_line(neighbour, PING).await, "HTTP/1.1 200 OK");
}

/// What would be dropped in silence is refused by its name, before anything is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_nothing_would_be_done_for_are_refused() {
    let door = Door::open().await;
    let said = async |target: &str| {
        let mut io = UnixStream::connect(&door.socket).await.unwrap();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        io.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, io.read_to_string(&mut answer)).await.expect("an answer and the end").unwrap();
        answer
    };
    for (target, named) in [
        ("/build?securityopt=%5B%22seccomp%3Dmine.json%22%5D", "securityopt"),
        ("/build?cgroupparent=/mine", "cgroupparent"),
        ("/build?isolation=hyperv", "isolation"),
        ("/containers/x/start?checkpoint=c1", "checkpoint"),
        ("/containers/x/start?checkpoint-dir=/tmp", "checkpoint-dir"),
    ] {
        let answer = said(target).await;
        let is_refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 ");
        assert!(is_refused && answer.contains(named), "{target}: {answer}");
    }
    for target in ["/build?securityopt=%5B%5D&isolation=default&cgroupparent=", "/build?securityopt=null"] {
        let answer = said(target).await;
        assert!(!answer.contains("not supported"), "{target}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_type_and_a_container_of_nothing_are_refused() {
    let door = Door::open().await;
    let said = async |target: &str, head: &str, body: &str| {
        let mut io = UnixStream::connect(&door.socket).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        );
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, io.read_to_string(&mut answer)).await.expect("an answer and the end").unwrap();
        answer
    };
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    for target in
        ["/containers/create", "/containers/x/update", "/exec/x/start", "/networks/create", "/volumes/create"]
    {
        for (head, words) in [
            ("", "malformed Content-Type header ()"),
            ("Content-Type: text/plain\r\n", "unsupported Content-Type header (text/plain)"),
        ] {
            let answer = said(target, head, "{}").await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains(words),
                "{target} {head}: {answer}"
            );
        }
        let answer = said(target, json, "{}").await;
        assert!(!answer.contains("Content-Type header"), "{target}: {answer}");
        let answer = said(target, "", "").await;
        assert!(!answer.contains("Content-Type header"), "nothing is of no type: {target}: {answer}");
    }
    for (body, words) in [
        ("{}", "config cannot be empty"),
        (r#"{"HostConfig":{}}"#, "config cannot be empty"),
        (r#"{"Tty":true}"#, "no command specified"),
    ] {
        let answer = said("/containers/create", json, body).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(words), "{body}: {answer}");
    }
    for size in ["", "?h=1", "?h=1&w=x", "?h=-1&w=1"] {
        let answer = said(&format!("/exec/x/resize{size}"), "", "").await;
        assert!(answer.contains("invalid resize "), "{size}: {answer}");
    }
}
