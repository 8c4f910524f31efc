//! The page, asked as browsers and as others would.

use crate::owner::peer::Peer;
use crate::owner::protocol::{Answer, Ask};
use crate::owner::tests::Place;
use crate::watch::status::Order;
use gleaner_harvest::OwnerWish;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// A page that is open.
struct Open {
    place: Place,
    address: SocketAddr,
    token: String,
}

/// An answer: its status, its head and its body.
#[derive(Debug)]
struct Heard {
    status: u16,
    head: String,
    body: String,
}

impl Open {
    async fn new() -> Self {
        let place = Place::new();
        let Answer::Page { url } = place.desk.answer(Ask::Page).await else {
            panic!("no page");
        };
        let rest = url.strip_prefix("http://").unwrap();
        let (address, token) = rest.split_once("/?token=").unwrap();
        Self {
            address: address.parse().unwrap(),
            token: token.to_owned(),
            place,
        }
    }

    async fn send(&self, text: String) -> Heard {
        let address = self.address;
        let send = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            // One that asks too much may be cut off while it still speaks.
            let _cut = stream.write_all(text.as_bytes());
            let mut answer = Vec::new();
            let _cut = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = tokio::task::spawn_blocking(send).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Heard {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str, headers: &str) -> Heard {
        let host = self.address;
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Heard {
        let (host, length) = (self.address, body.len());
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        ))
        .await
    }

    /// Comes in with the token; gives the cookie's header.
    async fn enter(&self) -> String {
        let heard = self.get(&format!("/?token={}", self.token), "").await;
        assert_eq!(heard.status, 303, "{heard:?}");
        let cookie = heard.head.split("set-cookie: ").nth(1).unwrap();
        assert!(cookie.contains("httponly; samesite=strict"), "{cookie}");
        assert!(!cookie.contains(&self.token), "the cookie is not the token");
        format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
    }
}

fn csrf(page: &str) -> &str {
    let from = page.split("name=\"csrf\" value=\"").nth(1).unwrap();
    from.split('"').next().unwrap()
}

#[tokio::test]
async fn the_token_opens_the_page_and_buttons_work_without_a_script() {
    let open = Open::new().await;
    let cookie = open.enter().await;
    let page = open.get("/", &cookie).await;
    assert_eq!(page.status, 200);
    for word in [
        "Working",
        "desk-4",
        "Until tomorrow, 8:00",
        "500 MiB",
        "<svg",
    ] {
        assert!(page.body.contains(word), "{word}: {}", page.body);
    }
    let policy = "content-security-policy: default-src 'none'";
    assert!(page.head.contains(policy), "{}", page.head);
    assert!(!page.head.contains("access-control"), "{}", page.head);
    let form = format!("csrf={}&for=3600", csrf(&page.body));
    assert_eq!(open.post("/pause", &cookie, &form).await.status, 303);
    let page = open.get("/", &cookie).await;
    assert!(page.body.contains("Paused by you"), "{}", page.body);
    let form = format!("csrf={}", csrf(&page.body));
    assert_eq!(open.post("/resume", &cookie, &form).await.status, 303);
    let live = open.get("/now", &cookie).await;
    assert!(live.body.contains("<h1>Working</h1>"), "{}", live.body);
    let heard = open.place.bell.heard.lock().unwrap().clone();
    assert!(matches!(
        heard[1..],
        [
            Order::Wish(OwnerWish::Pause { until: Some(_) }),
            Order::Wish(OwnerWish::Resume)
        ]
    ));
}

#[tokio::test]
async fn nobody_comes_in_without_the_token() {
    let open = Open::new().await;
    let cookie = open.enter().await;
    let half = &open.token[..open.token.len() - 1];
    for (path, headers, status) in [
        ("/", "", 401),
        ("/now", "", 401),
        ("/?token=", "", 401),
        ("/?token=0123456789abcdef", "", 401),
        (&*format!("/?token={half}"), "", 401),
        ("/", "Cookie: gleaner-owner=1\r\n", 401),
        ("/", &*cookie.replace('=', "=0"), 401),
        ("/../etc/passwd", &*cookie, 404),
        ("/page.css", "", 200),
    ] {
        let heard = open.get(path, headers).await;
        assert_eq!(heard.status, status, "{path} {headers}: {heard:?}");
        assert!(!heard.body.contains("desk-4"), "{heard:?}");
    }
    let heard = open.post("/pause", "", "for=900").await;
    assert_eq!(heard.status, 401);
    assert_eq!(open.place.bell.heard.lock().unwrap().len(), 1);
}

/// Comes in by the token, as a program of somebody else.
const STRANGER: &str = r#"exec 3<>"/dev/tcp/127.0.0.1/$0"
printf 'GET /?token=%s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" "$0" >&3
cat <&3"#;

/// A uid that owns nothing and sits nowhere.
const NOBODY: u32 = 65_534;

/// The address stands in the list of processes while a browser runs, for everybody to read.
#[tokio::test]
async fn another_user_who_has_the_address_is_not_heard() {
    // Only root can be somebody else.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let open = Open::new().await;
    let stranger = || {
        let mut call = Command::new("bash");
        call.args([
            "-c",
            STRANGER,
            &open.address.port().to_string(),
            &open.token,
        ]);
        call.uid(NOBODY);
        let said = tokio::task::spawn_blocking(move || call.output());
        async { String::from_utf8(said.await.unwrap().unwrap().stdout).unwrap() }
    };
    let said = stranger().await;
    assert!(
        said.starts_with("HTTP/1.1 403 ") && said.contains("gleaner owner page"),
        "{said}"
    );
    assert!(!said.to_ascii_lowercase().contains("set-cookie"), "{said}");
    // Who asks for it as an owner, which a group may make them, has a browser too.
    let peer = Peer {
        uid: NOBODY,
        gid: NOBODY,
        pid: None,
    };
    open.place.desk.answer_peer(Ask::Page, peer).await;
    let said = stranger().await;
    assert!(said.starts_with("HTTP/1.1 303 "), "{said}");
}

#[tokio::test]
async fn other_sites_cannot_use_the_owners_browser() {
    let open = Open::new().await;
    let cookie = open.enter().await;
    let port = open.address.port();
    // A name of theirs that points to this PC.
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1:{}", port.wrapping_add(1)),
        format!("127.0.0.1.evil.example:{port}"),
        String::new(),
    ] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{cookie}\r\n");
        let heard = open.send(request).await;
        assert!([400, 421].contains(&heard.status), "{host}: {heard:?}");
    }
    let localhost =
        format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{cookie}\r\n");
    assert_eq!(open.send(localhost).await.status, 200);
    let page = open.get("/", &cookie).await;
    let good = format!("csrf={}&for=900", csrf(&page.body));
    for (headers, form) in [
        (cookie.clone(), "for=900".to_owned()),
        (cookie.clone(), "csrf=&for=900".to_owned()),
        (cookie.clone(), format!("csrf={}&for=900", open.token)),
        (
            format!("{cookie}Origin: https://evil.example\r\n"),
            good.clone(),
        ),
        (format!("{cookie}Origin: null\r\n"), good.clone()),
    ] {
        assert_eq!(
            open.post("/pause", &headers, &form).await.status,
            403,
            "{headers} {form}"
        );
    }
    assert_eq!(
        open.place.bell.heard.lock().unwrap().len(),
        1,
        "nothing was paused"
    );
    let ours = format!("{cookie}Origin: http://127.0.0.1:{port}\r\n");
    assert_eq!(open.post("/pause", &ours, &good).await.status, 303);
    let odd = good.replace("for=900", "for=901");
    assert_eq!(open.post("/pause", &ours, &odd).await.status, 400);
}

#[tokio::test]
async fn what_is_too_long_is_cut_off() {
    let open = Open::new().await;
    let cookie = open.enter().await;
    let head = open
        .get("/", &format!("X-Long: {}\r\n", "x".repeat(100_000)))
        .await;
    assert!(head.status >= 400, "{head:?}");
    let path = open
        .get(&format!("/?token={}", "x".repeat(100_000)), "")
        .await;
    assert!(path.status >= 400 || path.status == 0, "{path:?}");
    let body = open.post("/pause", &cookie, &"x".repeat(10_000)).await;
    assert_eq!(body.status, 413, "{body:?}");
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let host = open.address;
        let request =
            format!("{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{cookie}\r\n");
        assert_eq!(open.send(request).await.status, 405, "{method}");
    }
    assert_eq!(open.get("/", &cookie).await.status, 200);
}
