//! The owner's page: a small web server on loopback, open only when it was asked for.
//!
//! Whoever has the address with its token gets a cookie; nobody else sees or does anything. The
//! address stands among the arguments of the browser that it was opened with, where every user of
//! the PC can read it, so only programs of owners are heard at all. A page from elsewhere cannot
//! use the owner's browser against it: the name by which it is called must be ours, the cookie
//! does not travel with other sites' requests, and what changes something needs a secret that only
//! our own page holds.

mod caller;
mod chart;
pub(super) mod html;
#[cfg(test)]
mod tests;

use super::protocol::{Answer, Refusal};
use crate::AgentError;
use bytes::Bytes;
use gleaner_harvest::OwnerWish;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once: a browser has six.
const CONNECTIONS_MAX: usize = 32;

/// Most bytes of the head of a request, and of its body: a button's form is a hundred bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long a client may take for the head of a request, and a connection may last.
const HEAD_WAIT: Duration = Duration::from_secs(10);
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// How long whoever is not heard may take to ask before they are told: they keep owners out.
const STRANGER_WAIT: Duration = Duration::from_secs(1);

/// Wait after a failed accept: the system is out of descriptors or memory.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// What the page may load and do: nothing but its own files.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; \
     base-uri 'none'";

/// What programs of others are told.
const NO_OWNER: &str = "this page is for owners of this PC, and for who asked for it by `gleaner \
     owner page`: ask for it as the user whose browser this is";

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

type Reply = Response<Full<Bytes>>;

/// The secrets of one opening. They never show themselves.
struct Secrets {
    /// In the address.
    token: String,
    /// In the cookie.
    session: String,
    /// In the forms.
    csrf: String,
}

/// Who is asked behind the page.
pub(super) trait Behind: Send + Sync + 'static {
    /// Whether programs of this user may speak to the page. Waits for the disk.
    fn admits(&self, uid: u32) -> bool;
    /// Everything that the page shows.
    fn shown(self: &Arc<Self>) -> impl Future<Output = Result<html::Shown, Refusal>> + Send;
    /// Gives an order, and answers when it holds.
    fn wish(
        self: &Arc<Self>,
        wish: OwnerWish,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// The page of one agent.
pub(super) struct Page<D> {
    desk: Arc<D>,
    address: SocketAddr,
    secrets: Secrets,
}

impl<D: Behind> Page<D> {
    /// Opens the page on loopback; port 0 takes a free one. Gives its address with the token.
    pub(super) async fn open(
        desk: Arc<D>,
        port: u16,
        stop: CancellationToken,
    ) -> Result<String, AgentError> {
        let failed = |source| AgentError::Io {
            doing: format!("open the owner's page on port {port} of loopback"),
            source,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(failed)?;
        let page = Arc::new(Self {
            desk,
            address: listener.local_addr().map_err(failed)?,
            secrets: Secrets {
                token: secret()?,
                session: secret()?,
                csrf: secret()?,
            },
        });
        let url = format!("http://{}/?token={}", page.address, page.secrets.token);
        tokio::spawn(page.serve(listener, stop));
        Ok(url)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_WAIT).await;
                continue;
            };
            let (page, stop) = (Arc::clone(&self), stop.clone());
            tokio::spawn(async move {
                // Its place is free again when the connection is over.
                let _place = place;
                let speaks = async {
                    let owner = page.is_owner(&stream).await;
                    page.speak(stream, owner).await;
                };
                tokio::select! {
                    () = speaks => {}
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(CONNECTION_MAX) => {}
                }
            });
        }
    }

    /// Whether the kernel says that an owner's program is at the other end.
    async fn is_owner(self: &Arc<Self>, stream: &TcpStream) -> bool {
        let (page, theirs) = (Arc::clone(self), stream.peer_addr());
        let look = move || {
            let uid = caller::uid(theirs.ok()?, page.address)?;
            Some(page.desk.admits(uid))
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.ok().flatten().unwrap_or(false)
    }

    async fn speak(self: Arc<Self>, stream: TcpStream, owner: bool) {
        let service = service_fn(move |request| {
            let page = Arc::clone(&self);
            async move {
                Ok::<_, Infallible>(match owner {
                    true => page.answer(request).await,
                    false => harden(plain(StatusCode::FORBIDDEN, NO_OWNER)),
                })
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(if owner { HEAD_WAIT } else { STRANGER_WAIT })
            .keep_alive(owner)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(target: "gleaner::owner", %error, "a page's connection broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let reply = match self.refuse(&request) {
            Some(refusal) => refusal,
            None => self.route(request).await,
        };
        harden(reply)
    }

    /// What is wrong with a request before it is looked at: a name that is not ours means that
    /// some other site sent the browser here.
    fn refuse(&self, request: &Request<Incoming>) -> Option<Reply> {
        let text = |name| {
            let value: Option<&HeaderValue> = request.headers().get(name);
            value.map(|value| value.to_str().unwrap_or_default())
        };
        let names = [
            self.address.to_string(),
            format!("localhost:{}", self.address.port()),
        ];
        let known = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        if !text(header::HOST).is_some_and(known)
            || request.headers().get_all(header::HOST).iter().count() != 1
        {
            let words = "this page answers to 127.0.0.1 and localhost only";
            return Some(plain(StatusCode::MISDIRECTED_REQUEST, words));
        }
        let foreign = text(header::ORIGIN)
            .is_some_and(|origin| !origin.strip_prefix("http://").is_some_and(known));
        foreign.then(|| plain(StatusCode::FORBIDDEN, "another page must not use this one"))
    }

    async fn route(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let asset = |kind, text: &'static str| content(kind, Bytes::from_static(text.as_bytes()));
        match (request.method(), path.as_str()) {
            (&Method::GET, "/page.css") => return asset("text/css; charset=utf-8", CSS),
            (&Method::GET, "/page.js") => return asset("text/javascript; charset=utf-8", SCRIPT),
            (&Method::GET, "/") if request.uri().query().is_some() => {
                return self.exchange(request.uri().query().unwrap_or_default());
            }
            _ => {}
        }
        if !self.has_session(&request) {
            let words = "this page needs its address with the token; `gleaner owner page` says it";
            return plain(StatusCode::UNAUTHORIZED, words);
        }
        match (request.method().clone(), path.as_str()) {
            (Method::GET, "/") => self.shown(true).await,
            (Method::GET, "/now") => self.shown(false).await,
            (Method::POST, "/pause" | "/resume") => self.act(&path, request).await,
            (Method::GET | Method::HEAD | Method::POST, _) => {
                plain(StatusCode::NOT_FOUND, "there is nothing here")
            }
            _ => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "this page takes GET and POST only",
            ),
        }
    }

    /// The token of the address for a cookie.
    fn exchange(&self, query: &str) -> Reply {
        let given = pairs(query).into_iter().find(|pair| pair.0 == "token");
        if !given.is_some_and(|(_, token)| same(&token, &self.secrets.token)) {
            let words = "this token is wrong or of an earlier start; `gleaner owner page` says \
                         the right address";
            return plain(StatusCode::UNAUTHORIZED, words);
        }
        let mut reply = see_other();
        let cookie = format!(
            "{}={}; HttpOnly; SameSite=Strict; Path=/",
            self.cookie_name(),
            self.secrets.session
        );
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            reply.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        reply
    }

    /// Browsers give one PC's cookies to all its ports, so each port has a name of its own.
    fn cookie_name(&self) -> String {
        format!("gleaner-owner-{}", self.address.port())
    }

    fn has_session(&self, request: &Request<Incoming>) -> bool {
        let name = self.cookie_name();
        request
            .headers()
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(key, value)| key == name && same(value, &self.secrets.session))
    }

    async fn shown(&self, whole: bool) -> Reply {
        let shown = match self.desk.shown().await {
            Ok(shown) => shown,
            Err(refusal) => return plain(StatusCode::SERVICE_UNAVAILABLE, &refusal.sentence),
        };
        let zone = jiff::tz::TimeZone::system();
        let text = match whole {
            true => html::page(&shown, &self.secrets.csrf, &zone),
            false => html::live(&shown, &zone),
        };
        content("text/html; charset=utf-8", Bytes::from(text))
    }

    async fn act(&self, path: &str, request: Request<Incoming>) -> Reply {
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
        let Ok(Ok(body)) = tokio::time::timeout(HEAD_WAIT, body).await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "a button's form is shorter");
        };
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let form = pairs(&body);
        let field = |name: &str| form.iter().find(|pair| pair.0 == name).map(|pair| &*pair.1);
        if !field("csrf").is_some_and(|csrf| same(csrf, &self.secrets.csrf)) {
            let words = "this button was not on this page; load it again";
            return plain(StatusCode::FORBIDDEN, words);
        }
        let wish = match path {
            "/resume" => OwnerWish::Resume,
            _ => match until(field("for").unwrap_or_default()) {
                Some(until) => OwnerWish::Pause { until },
                None => return plain(StatusCode::BAD_REQUEST, "there is no such pause"),
            },
        };
        match self.desk.wish(wish).await {
            Err(refusal) => plain(StatusCode::CONFLICT, &refusal.sentence),
            Ok(_) => see_other(),
        }
    }
}

/// When a pause that a button names ends; the inner none is a pause without an end.
fn until(word: &str) -> Option<Option<gleaner_model::Time>> {
    if !html::PAUSES.iter().any(|pause| pause.0 == word) {
        return None;
    }
    let now = super::wall::now();
    Some(match word {
        "" => None,
        "tomorrow" => Some(super::wall::tomorrow_at_eight()),
        seconds => {
            let seconds = seconds.parse().ok()?;
            Some(now + gleaner_model::Span::seconds(seconds))
        }
    })
}

fn secret() -> Result<String, AgentError> {
    let bytes = crate::home::random::<24>()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same(given: &str, secret: &str) -> bool {
    // Hashes of one length each: neither length nor place of a difference shows.
    blake3::hash(given.as_bytes()) == blake3::hash(secret.as_bytes())
}

/// Names and values of a query or a form. None of ours has a character that needs a code.
fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn plain(status: StatusCode, words: &str) -> Reply {
    let mut reply = content(
        "text/plain; charset=utf-8",
        Bytes::from(format!("{words}\n")),
    );
    *reply.status_mut() = status;
    reply
}

fn see_other() -> Reply {
    let mut reply = plain(StatusCode::SEE_OTHER, "go on at /");
    let home = HeaderValue::from_static("/");
    reply.headers_mut().insert(header::LOCATION, home);
    reply
}

fn content(kind: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    let kind = HeaderValue::from_static(kind);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

fn harden(mut reply: Reply) -> Reply {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    reply
}
