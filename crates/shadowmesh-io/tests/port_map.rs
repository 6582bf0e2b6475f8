//! Ports of a router, against routers that are written here: one that speaks PCP, one that speaks
//! NAT-PMP only, one that speaks UPnP. Each in a namespace of its own, with the host beside it. Runs as
//! root or, elsewhere, in a user namespace.

#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::{Handle, Route};
use shadowmesh_io::netns::Netns;
use shadowmesh_io::port_map::{Mapping, PortMapError};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const PORT: u16 = 4433;
const OWN: SocketAddrV4 = SocketAddrV4::new(HOST, PORT);
/// What the routers give, whatever is asked for.
const GIVEN: u32 = 600;
/// The port they give.
const OUTSIDE_PORT: u16 = 40_433;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a router was asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Map { lifetime: u32 },
    Remove,
}

/// A host and its router, joined by a cable; the host's way to everywhere leads through the router.
fn behind_router() -> [Netns; 2] {
    let ends = [Netns::new().unwrap(), Netns::new().unwrap()];
    ends[0].run(|| {
        let handle = Handle::new().unwrap();
        handle.create_veth("lan", "uplink").unwrap();
        let far = handle.link_by_name("lan").unwrap().index;
        handle.move_to_netns(far, &ends[1]).unwrap();
    });
    for (netns, name, address) in [(&ends[0], "uplink", HOST), (&ends[1], "lan", ROUTER)] {
        netns.run(|| {
            let handle = Handle::new().unwrap();
            let index = handle.link_by_name(name).unwrap().index;
            handle.add_address(index, address.into(), 24).unwrap();
            handle.set_up(index).unwrap();
        });
    }
    ends[0].run(|| {
        let handle = Handle::new().unwrap();
        let index = handle.link_by_name("uplink").unwrap().index;
        handle.wait_for_carrier(index, PATIENCE).unwrap();
        let everywhere = Route::via(Ipv4Addr::UNSPECIFIED.into(), 0, ROUTER.into());
        handle.add_route(&everywhere).unwrap();
        let hop = handle.gateway_towards(OUTSIDE.into()).unwrap();
        assert_eq!(hop, Some(ROUTER.into()));
        assert_eq!(handle.gateway_towards(ROUTER.into()).unwrap(), None);
    });
    ends
}

/// A router that answers PCP and NAT-PMP, or the latter only.
fn speak_pcp(router: &Netns, is_old: bool) -> Receiver<Asked> {
    let socket = router.run(|| UdpSocket::bind((ROUTER, 5351)).unwrap());
    let (asked, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1100];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let request = &buffer[..len];
            let answer = match request {
                [2, ..] if is_old => vec![0, 0x80, 0, 1, 0, 0, 0, 1],
                [2, 1, ..] => answer_pcp(request, &asked),
                [0, 0] => [&[0, 0x80, 0, 0, 0, 0, 0, 1][..], &OUTSIDE.octets()].concat(),
                [0, 1, ..] => answer_nat_pmp(request, &asked),
                _ => continue,
            };
            socket.send_to(&answer, from).unwrap();
        }
    });
    heard
}

fn given(lifetime: u32, asked: &Sender<Asked>) -> u32 {
    // The test may be over.
    let _ = asked.send(match lifetime {
        0 => Asked::Remove,
        lifetime => Asked::Map { lifetime },
    });
    lifetime.min(GIVEN)
}

/// RFC 6887 §7.2 and §11.1.
fn answer_pcp(request: &[u8], asked: &Sender<Asked>) -> Vec<u8> {
    let lifetime = given(u32::from_be_bytes(request[4..8].try_into().unwrap()), asked);
    assert_eq!(request[8..24], HOST.to_ipv6_mapped().octets());
    let mut answer = vec![2, 0x81, 0, 0];
    answer.extend(lifetime.to_be_bytes());
    answer.extend([0; 16]);
    answer[11] = 1;
    // Nonce, protocol, reserved, internal port.
    answer.extend(&request[24..42]);
    answer.extend(OUTSIDE_PORT.to_be_bytes());
    answer.extend(OUTSIDE.to_ipv6_mapped().octets());
    answer
}

/// RFC 6886 §3.3.
fn answer_nat_pmp(request: &[u8], asked: &Sender<Asked>) -> Vec<u8> {
    let lifetime = given(
        u32::from_be_bytes(request[8..12].try_into().unwrap()),
        asked,
    );
    let port = if lifetime == 0 { 0 } else { OUTSIDE_PORT };
    let mut answer = vec![0, 0x81, 0, 0, 0, 0, 0, 1];
    answer.extend(&request[4..6]);
    answer.extend(port.to_be_bytes());
    answer.extend(lifetime.to_be_bytes());
    answer
}

const WAN: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// A router that answers the search of UPnP, describes itself, and does what is asked by SOAP.
fn speak_upnp(router: &Netns, is_endless: bool) -> Receiver<Asked> {
    let (search, web) = router.run(|| {
        let search = UdpSocket::bind("239.255.255.250:1900").unwrap();
        let group = Ipv4Addr::new(239, 255, 255, 250);
        search.join_multicast_v4(&group, &ROUTER).unwrap();
        (search, TcpListener::bind((ROUTER, 0)).unwrap())
    });
    let answers = router.run(|| UdpSocket::bind((ROUTER, 0)).unwrap());
    let location = format!("http://{}/root.xml", web.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((len, from)) = search.recv_from(&mut buffer) {
            assert!(buffer[..len].starts_with(b"M-SEARCH"));
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
            answers.send_to(answer.as_bytes(), from).unwrap();
        }
    });
    let (asked, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in web.incoming() {
            let mut stream = stream.unwrap();
            let request = read_http(&mut stream);
            let (status, body) = answer_http(&request, is_endless, &asked);
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
            write!(stream, "{head}Connection: close\r\n\r\n{body}").unwrap();
        }
    });
    heard
}

fn read_http(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn argument(request: &str, name: &str) -> String {
    let (_, rest) = request.split_once(&format!("<{name}>")).expect(name);
    rest.split('<').next().unwrap().to_owned()
}

fn answer_http(request: &str, is_endless: bool, asked: &Sender<Asked>) -> (&'static str, String) {
    let done = |action: &str, inner: &str| {
        let body = format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
             <s:Body><u:{action}Response xmlns:u=\"{WAN}\">{inner}</u:{action}Response></s:Body></s:Envelope>"
        );
        ("200 OK", body)
    };
    if request.starts_with("GET /root.xml") {
        let service = format!(
            "<serviceType>{WAN}</serviceType><SCPDURL>/scpd.xml</SCPDURL><controlURL>/control</controlURL>"
        );
        let list = format!("<serviceList><service>{service}</service></serviceList>");
        return ("200 OK", format!("<root><device>{list}</device></root>"));
    }
    if request.starts_with("GET /scpd.xml") {
        return ("200 OK", schema());
    }
    if request.contains("#GetExternalIPAddress") {
        let ip = format!("<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>");
        return done("GetExternalIPAddress", &ip);
    }
    if request.contains("#DeletePortMapping") {
        let _ = asked.send(Asked::Remove);
        return done("DeletePortMapping", "");
    }
    let lifetime: u32 = argument(request, "NewLeaseDuration").parse().unwrap();
    let _ = asked.send(Asked::Map { lifetime });
    assert_eq!(argument(request, "NewInternalClient"), HOST.to_string());
    assert_eq!(argument(request, "NewProtocol"), "UDP");
    let is_taken = argument(request, "NewExternalPort") == PORT.to_string();
    let code = match (is_endless && lifetime > 0, is_taken) {
        (true, _) => 725,
        (_, true) => 718,
        _ => return done("AddPortMapping", ""),
    };
    let fault = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
         <faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    );
    ("500 Internal Server Error", fault)
}

fn schema() -> String {
    let actions = [
        (
            "AddPortMapping",
            &[
                "NewRemoteHost",
                "NewExternalPort",
                "NewProtocol",
                "NewInternalPort",
                "NewInternalClient",
                "NewEnabled",
                "NewPortMappingDescription",
                "NewLeaseDuration",
            ][..],
        ),
        (
            "DeletePortMapping",
            &["NewRemoteHost", "NewExternalPort", "NewProtocol"],
        ),
    ];
    let action = |(name, arguments): &(&str, &[&str])| {
        let one = |name: &&str| {
            format!("<argument><name>{name}</name><direction>in</direction></argument>")
        };
        let arguments: String = arguments.iter().map(one).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let actions: String = actions.iter().map(action).collect();
    format!("<scpd><actionList>{actions}</actionList></scpd>")
}

fn next(heard: &Receiver<Asked>) -> Asked {
    heard.recv_timeout(PATIENCE).expect("the router was asked")
}

/// Makes, renews and removes a mapping by PCP or NAT-PMP.
fn map_renew_remove(is_old: bool, protocol: &'static str) {
    let [host, router] = behind_router();
    let heard = speak_pcp(&router, is_old);
    host.run(move || {
        let mut mapping = Mapping::ask(ROUTER, OWN, Duration::from_secs(7200)).unwrap();
        assert_eq!(mapping.protocol(), protocol);
        assert_eq!(mapping.external(), SocketAddrV4::new(OUTSIDE, OUTSIDE_PORT));
        assert_eq!(mapping.lifetime(), Duration::from_secs(GIVEN.into()));
        assert_eq!(next(&heard), Asked::Map { lifetime: 7200 });
        mapping.renew().unwrap();
        assert_eq!(next(&heard), Asked::Map { lifetime: GIVEN });
        assert_eq!(mapping.external(), SocketAddrV4::new(OUTSIDE, OUTSIDE_PORT));
        mapping.remove().unwrap();
        assert_eq!(next(&heard), Asked::Remove);
    });
}

#[test]
fn a_port_is_mapped_renewed_and_given_back_by_pcp() {
    privileged("a_port_is_mapped_renewed_and_given_back_by_pcp", || {
        map_renew_remove(false, "PCP");
    });
}

#[test]
fn where_the_router_speaks_only_nat_pmp_that_is_spoken() {
    privileged(
        "where_the_router_speaks_only_nat_pmp_that_is_spoken",
        || {
            map_renew_remove(true, "NAT-PMP");
        },
    );
}

#[test]
fn a_port_is_mapped_renewed_and_given_back_by_upnp_and_another_if_ours_is_taken() {
    privileged(
        "a_port_is_mapped_renewed_and_given_back_by_upnp_and_another_if_ours_is_taken",
        || {
            let [host, router] = behind_router();
            let heard = speak_upnp(&router, false);
            host.run(move || {
                let asked_for = Duration::from_secs(7200);
                let mut mapping = Mapping::ask(ROUTER, OWN, asked_for).unwrap();
                assert_eq!(mapping.protocol(), "UPnP");
                assert_eq!(mapping.external(), SocketAddrV4::new(OUTSIDE, PORT + 1));
                assert_eq!(mapping.lifetime(), asked_for);
                for _ in 0..2 {
                    assert_eq!(next(&heard), Asked::Map { lifetime: 7200 });
                }
                mapping.renew().unwrap();
                assert_eq!(next(&heard), Asked::Map { lifetime: 7200 });
                mapping.remove().unwrap();
                assert_eq!(next(&heard), Asked::Remove);
            });
        },
    );
}

#[test]
fn a_upnp_router_that_knows_no_end_is_asked_for_none() {
    privileged("a_upnp_router_that_knows_no_end_is_asked_for_none", || {
        let [host, router] = behind_router();
        let heard = speak_upnp(&router, true);
        host.run(move || {
            let mapping = Mapping::ask(ROUTER, OWN, Duration::from_secs(7200)).unwrap();
            assert_eq!(mapping.external().port(), PORT + 1);
            let asked: Vec<Asked> = heard.try_iter().collect();
            assert_eq!(asked.last(), Some(&Asked::Map { lifetime: 0 }));
        });
    });
}

#[test]
fn a_router_that_knows_none_of_it_is_given_up_within_seconds_and_named() {
    privileged(
        "a_router_that_knows_none_of_it_is_given_up_within_seconds_and_named",
        || {
            let [host, _router] = behind_router();
            host.run(move || {
                let start = std::time::Instant::now();
                let refused = Mapping::ask(ROUTER, OWN, Duration::from_secs(7200)).err();
                let refused = refused.expect("there is nobody to answer");
                assert!(
                    matches!(refused, PortMapError::Refused { router, .. } if router == ROUTER)
                );
                assert!(start.elapsed() < Duration::from_secs(6), "{refused}");
            });
        },
    );
}
