//! Peers that hang, flood and talk nonsense; messages as bytes.

use super::*;
use proptest::prelude::*;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

const PEER: Peer<'static> = Peer {
    name: "org.example.Clock",
    path: "/org/example/Clock",
    interface: "org.example.Clock",
};

/// A bus that a test plays.
fn play(
    act: impl FnOnce(UnixStream) + Send + 'static,
) -> (String, JoinHandle<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let player = std::thread::spawn(move || act(listener.accept().unwrap().0));
    (format!("unix:path={}", path.display()), player, folder)
}

/// Takes the authentication as a bus does.
fn welcome(stream: &mut UnixStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    for answer in ["OK 0123\r\n", "AGREE_UNIX_FD\r\n", ""] {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

/// Reads until the other side goes.
fn until_gone(stream: &mut UnixStream) {
    let mut bytes = [0; 256];
    while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

#[test]
fn no_socket_is_no_bus() {
    let stop = Stop::new().unwrap();
    let missing = "unix:path=/nowhere/at/all;unix:abstract=gleaner-test-nowhere";
    let end = Bus::connect(missing, &stop).unwrap_err();
    assert!(matches!(end, BusError::NoBus | BusError::Io(_)), "{end}");
    let end = Bus::connect("tcp:host=localhost", &stop).unwrap_err();
    assert!(matches!(end, BusError::Address(_)), "{end}");
}

#[test]
fn a_peer_that_never_answers_is_left() {
    let stop = Stop::new().unwrap();
    let (address, player, _folder) = play(|mut stream| until_gone(&mut stream));
    let end = Bus::connect(&address, &stop).unwrap_err();
    assert!(matches!(end, BusError::Silent), "{end}");
    player.join().unwrap();
}

#[test]
fn a_peer_that_hangs_after_its_welcome_is_left() {
    let stop = Stop::new().unwrap();
    let (address, player, _folder) = play(|mut stream| {
        welcome(&mut stream);
        until_gone(&mut stream);
    });
    let end = Bus::connect(&address, &stop).unwrap_err();
    assert!(matches!(end, BusError::Silent), "{end}");
    player.join().unwrap();
}

#[test]
fn waiting_ends_at_the_stop() {
    let stop = Stop::new().unwrap();
    let other = stop.clone();
    let (address, player, _folder) = play(move |mut stream| {
        welcome(&mut stream);
        other.stop();
        until_gone(&mut stream);
    });
    let end = Bus::connect(&address, &stop).unwrap_err();
    assert!(matches!(end, BusError::Stopped), "{end}");
    player.join().unwrap();
}

#[test]
fn nonsense_ends_the_connection() {
    for nonsense in [
        b"HTTP/1.1 200 OK\r\n\r\n and so on and on".to_vec(),
        // A message that says it is four gibibytes long.
        [&b"l\x02\x00\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0"[..]].concat(),
    ] {
        let stop = Stop::new().unwrap();
        let (address, player, _folder) = play(move |mut stream| {
            welcome(&mut stream);
            stream.write_all(&nonsense).unwrap();
            until_gone(&mut stream);
        });
        let end = Bus::connect(&address, &stop).unwrap_err();
        assert!(matches!(end, BusError::Nonsense(_)), "{end}");
        player.join().unwrap();
    }
}

#[test]
fn an_endless_line_ends_the_connection() {
    let stop = Stop::new().unwrap();
    let (address, player, _folder) =
        play(|mut stream| while stream.write_all(&[b'x'; 512]).is_ok() {});
    let end = Bus::connect(&address, &stop).unwrap_err();
    assert!(matches!(end, BusError::Nonsense(_)), "{end}");
    player.join().unwrap();
}

/// A signal by hand, without a body: to everybody, or to one connection alone.
fn signal(member: &str, to_all: bool) -> Vec<u8> {
    const SENDER: u8 = 7;
    let mut message = wire::call(9, PEER, member, &[]);
    message[1] = 4;
    if to_all {
        let field = [wire::DESTINATION, 1, b's', 0];
        let at = message.windows(4).position(|bytes| bytes == field);
        message[at.unwrap()] = SENDER;
    }
    message
}

#[test]
fn what_anybody_may_send_to_us_alone_is_not_heard() {
    for (to_all, heard) in [(true, true), (false, false)] {
        let message = wire::message(&signal("Tick", to_all)).unwrap();
        assert_eq!(matches!(message, Message::Said(_)), heard);
    }
}

#[test]
fn signals_are_kept_up_to_a_bound() {
    let tick = signal("Tick", true);
    let stop = Stop::new().unwrap();
    let (address, player, _folder) = play(move |mut stream| {
        welcome(&mut stream);
        for _ in 0..SIGNALS_MAX * 3 {
            stream.write_all(&tick).unwrap();
        }
        // The answer to the first call, with no body.
        let fields = [5_u8, 1, b'u', 0, 1, 0, 0, 0];
        let mut answer = vec![b'l', 2, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0];
        answer.extend(fields);
        stream.write_all(&answer).unwrap();
        until_gone(&mut stream);
    });
    let mut bus = Bus::connect(&address, &stop).unwrap();
    assert_eq!(bus.signals.len(), SIGNALS_MAX);
    let said = bus.settle(Duration::from_millis(1)).unwrap();
    assert_eq!(said.len(), SIGNALS_MAX);
    assert_eq!(said[0].member, "Tick");
    drop(bus);
    player.join().unwrap();
}

#[test]
fn addresses_may_be_escaped() {
    assert_eq!(unescape("/run/a%20b%2"), b"/run/a b%2");
    socket_address("unix:guid=5,path=/run/x").unwrap();
    socket_address("unix:abstract=/tmp/dbus-x").unwrap();
    socket_address("unix:guid=5").unwrap_err();
}

proptest! {
    /// Whatever comes, there is an answer or an error, soon.
    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 16..400)) {
        bytes[0] = b'l';
        bytes[3] = 1;
        if let Ok(Some(length)) = wire::length(&bytes) {
            bytes.resize(length, 0);
            let _understood = wire::message(&bytes).is_ok();
        }
    }

    /// A reply's fields with a broken byte.
    #[test]
    fn a_broken_message_is_survived(at in 0_usize..120, byte in any::<u8>()) {
        let mut bytes = wire::call(3, PEER, "Now", &[Arg::Text("zone"), Arg::Number(7)]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(Some(length)) = wire::length(&bytes) && length <= bytes.len() {
            let _understood = wire::message(&bytes[..length]).is_ok();
        }
    }
}
