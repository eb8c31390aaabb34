//! Files and images from a web server.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use image::{ImportOptions, Store};
use std::{fs, path::Path};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

/// A server that has one file under several names; returns its address, and what it ends with.
async fn server(content: Vec<u8>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            let length = content.len();
            let (status, body) = match head.split(' ').nth(1).unwrap() {
                "/file.tar" => (
                    format!(
                        "200 OK\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: {length}"
                    ),
                    &content[..],
                ),
                "/moved" => ("302 Found\r\nLocation: /file.tar\r\nContent-Length: 0".to_owned(), &[][..]),
                "/round" => ("302 Found\r\nLocation: /round\r\nContent-Length: 0".to_owned(), &[][..]),
                "/cut" => (format!("200 OK\r\nContent-Length: {}", length + 1), &content[..]),
                _ => ("404 Not Found\r\nContent-Length: 0".to_owned(), &[][..]),
            };
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(body).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    (address, server)
}

fn single_uid() -> bool {
    fs::read_to_string("/proc/self/uid_map").unwrap().split_ascii_whitespace().nth(2) == Some("1")
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn files_are_fetched_through_redirects_and_errors_name_the_url() {
    let (address, _server) = server(b"content".to_vec()).await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), single_uid()).await.unwrap();
    let to = |name: &str| dir.path().join(name);
    let got = store.download(&format!("http://{address}/moved"), &to("a")).await.unwrap();
    assert_eq!(fs::read(to("a")).unwrap(), b"content");
    assert_eq!((got.name.as_str(), got.modified.unwrap().unix_timestamp()), ("file.tar", 1_445_412_480));
    assert_eq!(got.digest, image::Digest::of(b"content"));
    for (path, expected) in [("none", "404"), ("round", "ten redirects"), ("cut", "")] {
        let error = store.download(&format!("http://{address}/{path}"), &to(path)).await.unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains(path) && text.contains(expected), "{text}");
    }
    assert!(
        store.download(&format!("http://{address}/file.tar"), &to("a")).await.is_err(),
        "no file is replaced"
    );
}

#[tokio::test]
async fn an_image_is_made_of_a_tarball_on_a_server() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "hi", &b"hi"[..]).unwrap();
    let (address, _server) = server(tar.into_inner().unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), single_uid()).await.unwrap();
    let url = format!("http://{address}/file.tar");
    let options = ImportOptions { reference: Some("a:1".parse().unwrap()), ..ImportOptions::default() };
    let id = store.import_url(&url, options).await.unwrap();
    let image = store.get("a:1").await.unwrap();
    assert_eq!((image.id, image.config.comment.clone()), (id, format!("Imported from {url}")));
    assert!(store.import_url(&format!("http://{address}/none"), ImportOptions::default()).await.is_err());
    assert_eq!(names(&dir.path().join("ingest")), 0);
}
