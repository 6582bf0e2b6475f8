use super::super::*;
use super::nodes::{Node, Pair, deliver, flight, start_server};

// PROTOCOL SM-HS-5
#[test]
fn a_resumed_connection_carries_the_peer_id_and_needs_no_signature() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    client.work();
    server.work();
    // More returns than the first connection gave tickets: each return brings new ones.
    for _ in 0..5 {
        let pair = Pair::finished(&client, &server);
        assert_eq!(authenticated_peer(&*pair.client), Some(server.id()));
        assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
        // A fresh key exchange every time: a stolen ticket does not open past or later traffic.
        assert_eq!(client.work(), [2, 0, 0]);
        assert_eq!(server.work(), [1, 0, 0]);
    }
}

// PROTOCOL SM-HS-5
#[test]
fn a_connection_resumed_from_short_certificates_carries_the_peer_id_too() {
    let (client, server) = Node::pair();
    client.book.learned(Arc::clone(server.identity.public()));
    server.book.learned(Arc::clone(client.identity.public()));
    Pair::finished(&client, &server);
    client.work();
    let pair = Pair::finished(&client, &server);
    assert_eq!(client.work(), [2, 0, 0], "resumed");
    assert_eq!(authenticated_peer(&*pair.client), Some(server.id()));
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
}

// PROTOCOL SM-HS-5
#[test]
fn a_peer_that_is_no_member_any_more_is_still_named_on_a_resumed_connection() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    let mut pair = Pair::new(&client, &server);
    server.book.remove(&client.id());
    pair.run().unwrap();
    // TLS lets it in, as resumption asks no verifier; who it is lets the caller throw it out.
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
    assert!(!server.book.is_member(&client.id()));
}

// PROTOCOL SM-HS-5
#[test]
fn a_forgotten_server_gets_a_full_handshake() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    client.tls.forget(&server.id());
    client.work();
    Pair::finished(&client, &server);
    assert_eq!(client.work(), [2, 1, 1]);
}

// PROTOCOL SM-HS-5
#[test]
fn a_ticket_of_one_server_is_of_no_use_with_another() {
    let (client, server) = Node::pair();
    let other = Node::new();
    client.book.add(other.id());
    other.book.add(client.id());
    Pair::finished(&client, &server);
    client.work();
    let pair = Pair::finished(&client, &other);
    assert_eq!(client.work(), [2, 1, 1]);
    assert_eq!(authenticated_peer(&*pair.client), Some(other.id()));
}

// PROTOCOL SM-HS-11
#[test]
fn a_server_that_lost_its_tickets_falls_back_to_a_full_handshake() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    client.work();
    let restarted = TlsConfigs::new(
        Arc::clone(&server.identity),
        Arc::clone(&server.book) as Arc<dyn PeerBook>,
        Arc::clone(&server.counters),
    );
    let mut pair = Pair::with(
        client.tls.client(server.id(), true),
        restarted.server(),
        &server.id(),
    );
    assert!(
        pair.client.early_crypto().is_some(),
        "the client tries 0-RTT"
    );
    pair.run().unwrap();
    assert_eq!(pair.client.early_data_accepted(), Some(false));
    assert_eq!(client.work(), [2, 1, 1]);
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
}

/// What a client sealed as 0-RTT, as the server's 0-RTT key opens it.
fn early_data(client: &dyn Session, server: &dyn Session) -> Option<Vec<u8>> {
    const HEADER: &[u8] = b"header";
    let (_, seal) = client.early_crypto()?;
    let (_, open) = server.early_crypto()?;
    let mut packet = [HEADER, b"hello", &[0; 16]].concat();
    seal.encrypt(1, &mut packet, HEADER.len());
    let mut payload = bytes::BytesMut::from(&packet[HEADER.len()..]);
    open.decrypt(1, HEADER, &mut payload).ok()?;
    Some(payload.to_vec())
}

// PROTOCOL SM-HS-11
#[test]
fn a_returning_client_sends_in_its_first_flight() {
    let (client, server) = Node::pair();
    let first = Pair::new(&client, &server);
    assert!(
        first.client.early_crypto().is_none(),
        "strangers have no 0-RTT"
    );
    Pair::finished(&client, &server);

    let mut pair = Pair::new(&client, &server);
    let hello = flight(&mut *pair.client);
    deliver(&mut *pair.server, &hello).unwrap();
    assert_eq!(
        early_data(&*pair.client, &*pair.server).as_deref(),
        Some(b"hello".as_slice())
    );
    assert_eq!(
        authenticated_peer(&*pair.server),
        None,
        "0-RTT proves nobody"
    );
    pair.run().unwrap();
    assert_eq!(pair.client.early_data_accepted(), Some(true));
}

// PROTOCOL SM-HS-11
#[test]
fn a_replayed_first_flight_gets_no_0_rtt_and_never_finishes() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    let mut pair = Pair::new(&client, &server);
    let hello = flight(&mut *pair.client);
    deliver(&mut *pair.server, &hello).unwrap();
    assert!(pair.server.early_crypto().is_some());

    let mut replayed = start_server(server.tls.server());
    deliver(&mut *replayed, &hello).unwrap();
    assert!(replayed.early_crypto().is_none(), "the ticket was used up");

    // The real client's answer fits the real server's flight, not the one to the replay.
    let answer = flight(&mut *pair.server);
    deliver(&mut *pair.client, &answer).unwrap();
    flight(&mut *replayed);
    let finished = flight(&mut *pair.client);
    assert!(deliver(&mut *replayed, &finished).is_err());
    assert_eq!(authenticated_peer(&*replayed), None);
    deliver(&mut *pair.server, &finished).unwrap();
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
}

// PROTOCOL SM-HS-11
#[test]
fn a_client_uses_each_ticket_once() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    let attempts: Vec<bool> = (0..TICKETS_PER_CONNECTION + 1)
        .map(|_| Pair::new(&client, &server).client.early_crypto().is_some())
        .collect();
    assert_eq!(attempts, [true, true, false]);
}
