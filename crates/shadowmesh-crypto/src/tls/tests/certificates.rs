use super::super::*;
use super::nodes::{Node, Pair, deliver, flight};

fn certificate(session: &dyn Session) -> Certificate {
    let chain = session.peer_identity().unwrap();
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    Certificate::parse(&chain[0]).unwrap()
}

fn is_short(session: &dyn Session) -> bool {
    matches!(certificate(session), Certificate::Short(_))
}

/// Two nodes that know each other's keys and hold no tickets.
fn acquainted() -> (Node, Node) {
    let (client, server) = Node::pair();
    client.book.learned(Arc::clone(server.identity.public()));
    server.book.learned(Arc::clone(client.identity.public()));
    (client, server)
}

// PROTOCOL SM-HS-6
#[test]
fn strangers_show_full_certificates_and_acquaintances_short_ones() {
    let (client, server) = Node::pair();
    let pair = Pair::finished(&client, &server);
    assert!(!is_short(&*pair.client) && !is_short(&*pair.server));

    let (client, server) = acquainted();
    let pair = Pair::finished(&client, &server);
    assert!(is_short(&*pair.client) && is_short(&*pair.server));
    assert_eq!(authenticated_peer(&*pair.client), Some(server.id()));
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
    assert_eq!(client.work(), [2, 1, 1]);
    assert_eq!(server.work(), [1, 1, 1]);
}

// PROTOCOL SM-HS-6
#[test]
fn each_side_shortens_its_certificate_by_what_the_other_holds() {
    let (client, server) = Node::pair();
    client.book.learned(Arc::clone(server.identity.public()));
    let pair = Pair::finished(&client, &server);
    assert!(is_short(&*pair.client), "the client holds the server's key");
    assert!(
        !is_short(&*pair.server),
        "the server does not hold the client's"
    );

    let (client, server) = Node::pair();
    server.book.learned(Arc::clone(client.identity.public()));
    let pair = Pair::finished(&client, &server);
    assert!(!is_short(&*pair.client));
    assert!(is_short(&*pair.server));
}

// PROTOCOL SM-HS-6
#[test]
fn the_short_certificate_saves_two_and_a_half_kilobytes_each_way() {
    let flights = |(client, server): (Node, Node)| {
        let mut pair = Pair::new(&client, &server);
        let bytes = |flight: &[Vec<u8>]| flight.iter().map(Vec::len).sum::<usize>();
        let hello = flight(&mut *pair.client);
        deliver(&mut *pair.server, &hello).unwrap();
        let answer = flight(&mut *pair.server);
        deliver(&mut *pair.client, &answer).unwrap();
        let finished = flight(&mut *pair.client);
        (bytes(&hello) + bytes(&finished), bytes(&answer))
    };
    let (full_client, full_server) = flights(Node::pair());
    let (short_client, short_server) = flights(acquainted());
    assert!((2500..2700).contains(&(full_client - short_client)));
    assert!((2500..2700).contains(&(full_server - short_server)));
}

// PROTOCOL SM-HS-6
#[test]
fn a_short_certificate_of_an_unknown_key_fails_and_the_full_one_then_succeeds() {
    let (client, server) = Node::pair();
    let claim = client.tls.client(server.id(), true);
    let mut pair = Pair::with(claim, server.tls.server(), &server.id());
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, quinn_proto::Side::Server);
    assert!(error.reason.contains("UnknownIssuer"), "{error}");
    assert_eq!(server.work(), [1, 1, 0], "no signature is checked");

    let pair = Pair::finished(&client, &server);
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
}

// PROTOCOL SM-HS-6
#[test]
fn a_key_forgotten_during_the_handshake_fails_it_cleanly() {
    let (client, server) = acquainted();
    let mut pair = Pair::new(&client, &server);
    let hello = flight(&mut *pair.client);
    deliver(&mut *pair.server, &hello).unwrap();
    client.book.forget_key(&server.id());
    let error = deliver(&mut *pair.client, &flight(&mut *pair.server)).unwrap_err();
    assert!(error.reason.contains("UnknownIssuer"), "{error}");
}

/// A book that answers every question with one key.
#[derive(Debug)]
struct Mistaken(Arc<PublicIdentity>);

impl PeerBook for Mistaken {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }

    fn public_identity(&self, _: &PeerId) -> Option<Arc<PublicIdentity>> {
        Some(Arc::clone(&self.0))
    }

    fn learned(&self, _: Arc<PublicIdentity>) {}
}

// PROTOCOL SM-ID-1
// PROTOCOL SM-HS-6
#[test]
fn a_key_that_does_not_make_the_peer_id_is_not_used_even_if_the_book_has_it() {
    let (client, server) = Node::pair();
    let book = Arc::new(Mistaken(Arc::clone(client.identity.public())));
    let tls = TlsConfigs::new(Arc::clone(&client.identity), book, Arc::default());
    let mut pair = Pair::with(
        tls.client(server.id(), false),
        server.tls.server(),
        &server.id(),
    );
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, quinn_proto::Side::Client);
    assert!(error.reason.contains("UnknownIssuer"), "{error}");
}

#[test]
fn the_first_flight_names_neither_side() {
    let (client, server) = acquainted();
    let mut pair = Pair::new(&client, &server);
    let hello = flight(&mut *pair.client).concat();
    for id in [client.id(), server.id()] {
        let text = id.to_string();
        assert!(
            !hello
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        );
        assert!(!hello.windows(32).any(|window| window == id.as_bytes()));
    }
}
