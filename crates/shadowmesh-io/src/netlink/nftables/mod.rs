//! The kernel's packet filter and address translation (nftables), for laboratories.
//!
//! A [`Batch`] collects tables, chains, sets and rules; [`Nftables::apply`] hands them over, all or
//! none. Only what a NAT box is made of is known here: seven matches and a few actions, each encoded
//! as the expressions that `nft` would send (linux/netfilter/nf_tables.h). Everything lies in the
//! family `ip`: IPv6 is not translated.
//!
//! A handle belongs to the network namespace it was opened in, as [`Handle`](super::Handle) does; the
//! rules vanish with the namespace.

mod expression;

use std::sync::Mutex;
use std::time::Duration;

use super::connection::{Connection, Result};
use super::message::Request;
use super::record::REQUEST;

pub use expression::{Action, Match, PortChoice};

/// `NFNL_SUBSYS_*` of linux/netfilter/nfnetlink.h.
const SUBSYSTEM_CONNTRACK: u16 = 1;
const SUBSYSTEM_NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_*`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFT_MSG_*` and, of the connection tracking, `IPCTNL_MSG_CT_DELETE`.
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const CONNTRACK_DELETE: u16 = 2;
/// `NFPROTO_IPV4`.
const FAMILY_IPV4: u8 = 2;

const CREATE: u16 = REQUEST | libc::NLM_F_CREATE as u16;
const APPEND: u16 = CREATE | libc::NLM_F_APPEND as u16;

/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// `NFTA_CHAIN_*` and `NFTA_HOOK_*`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NFTA_RULE_*`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// `NFTA_SET_*`, `NFTA_SET_DESC_SIZE`, and the flags "elements expire", "rules add elements".
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_DESCRIPTION_SIZE: u16 = 1;
const SET_ID: u16 = 10;
const SET_TIMEOUT: u16 = 11;
const SET_EXPIRES_AND_GROWS: u32 = 0x10 | 0x20;
/// What `nft` calls `ipv4_addr`; the kernel only keeps it.
const KEY_TYPE_IPV4: u32 = 7;
/// More addresses than any laboratory has.
const SET_SIZE_MAX: u32 = 1024;

/// Where a chain looks at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Coming in, before routing: destinations are translated here.
    TranslateIn,
    /// Going out, after routing: sources are translated here.
    TranslateOut,
    /// For this machine itself: filtered.
    Input,
    /// Passing through: filtered.
    Forward,
    /// From this machine itself: filtered.
    Output,
}

impl Hook {
    /// Kind of chain, number of the hook (`NF_INET_*`) and priority (`NF_IP_PRI_*`).
    fn place(self) -> (&'static str, u32, i32) {
        match self {
            Self::TranslateIn => ("nat", 0, -100),
            Self::TranslateOut => ("nat", 4, 100),
            Self::Input => ("filter", 1, 0),
            Self::Forward => ("filter", 2, 0),
            Self::Output => ("filter", 3, 0),
        }
    }
}

/// Changes that are made together.
#[derive(Default)]
pub struct Batch {
    steps: Vec<(String, Request)>,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A table of the family `ip`.
    pub fn table(self, table: &str) -> Self {
        let request = request(NEW_TABLE, CREATE).text(TABLE_NAME, table);
        self.step(format!("make the table ip {table}"), request)
    }

    /// A chain whose rules see packets at the hook; what no rule decides about passes.
    pub fn chain(self, table: &str, chain: &str, hook: Hook) -> Self {
        let (kind, number, priority) = hook.place();
        let request = request(NEW_CHAIN, CREATE)
            .text(CHAIN_TABLE, table)
            .text(CHAIN_NAME, chain)
            .nested(CHAIN_HOOK, |hook| {
                big_endian(
                    big_endian(hook, HOOK_NUMBER, number),
                    HOOK_PRIORITY,
                    priority as u32,
                )
            })
            .text(CHAIN_TYPE, kind);
        self.step(format!("make the chain {table} {chain}"), request)
    }

    /// A set of IPv4 addresses that rules add to, each forgotten after `timeout`.
    pub fn address_set(self, table: &str, set: &str, timeout: Duration) -> Self {
        let id = self.steps.len() as u32 + 1;
        let request = request(NEW_SET, CREATE)
            .text(SET_TABLE, table)
            .text(SET_NAME, set);
        let request = [
            (SET_FLAGS, SET_EXPIRES_AND_GROWS),
            (SET_KEY_TYPE, KEY_TYPE_IPV4),
            (SET_KEY_LEN, 4),
            (SET_ID, id),
        ]
        .into_iter()
        .fold(request, |request, (kind, value)| {
            big_endian(request, kind, value)
        })
        .attribute(SET_TIMEOUT, &milliseconds(timeout))
        .nested(SET_DESCRIPTION, |description| {
            big_endian(description, SET_DESCRIPTION_SIZE, SET_SIZE_MAX)
        });
        self.step(format!("make the set {table} {set}"), request)
    }

    /// A rule at the end of a chain: what is done with packets that fit all of `matches`.
    pub fn rule(self, table: &str, chain: &str, matches: &[Match<'_>], action: Action<'_>) -> Self {
        let request = request(NEW_RULE, APPEND)
            .text(RULE_TABLE, table)
            .text(RULE_CHAIN, chain)
            .nested(RULE_EXPRESSIONS, |list| {
                let list = matches.iter().fold(list, |list, one| one.encode(list));
                action.encode(list)
            });
        let operation = format!("add to {table} {chain} the rule {matches:?} {action:?}");
        self.step(operation, request)
    }

    fn step(mut self, operation: String, request: Request) -> Self {
        self.steps.push((operation, request));
        self
    }
}

/// A connection to the kernel's packet filter, in the namespace it was opened in.
pub struct Nftables {
    connection: Mutex<Connection>,
}

impl Nftables {
    /// Opens a connection in the calling thread's network namespace.
    pub fn new() -> Result<Self> {
        let connection = Connection::open(libc::NETLINK_NETFILTER)?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// Makes all the changes of a batch, or none.
    pub fn apply(&self, batch: Batch) -> Result<()> {
        let mark = |kind| {
            Request::new(
                kind,
                libc::NLM_F_REQUEST as u16,
                &header(0, SUBSYSTEM_NFTABLES),
            )
        };
        let mut connection = self.lock();
        connection.execute_batch(mark(BATCH_BEGIN), batch.steps, mark(BATCH_END))
    }

    /// Forgets all connections that are tracked here, and so all mappings of a NAT.
    pub fn forget_connections(&self) -> Result<()> {
        let kind = SUBSYSTEM_CONNTRACK << 8 | CONNTRACK_DELETE;
        let request = Request::new(kind, REQUEST, &header(FAMILY_IPV4, 0));
        let mut connection = self.lock();
        connection.execute("forget all tracked connections".to_owned(), request)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .expect("no panic happens under this lock")
    }
}

fn request(kind: u16, flags: u16) -> Request {
    Request::new(
        SUBSYSTEM_NFTABLES << 8 | kind,
        flags,
        &header(FAMILY_IPV4, 0),
    )
}

/// `struct nfgenmsg`: family, version, and for the marks of a batch whose it is.
fn header(family: u8, subsystem: u16) -> [u8; 4] {
    let [high, low] = subsystem.to_be_bytes();
    [family, 0, high, low]
}

/// Numbers are in network byte order here, unlike in routing messages.
fn big_endian(request: Request, kind: u16, value: u32) -> Request {
    request.attribute(kind, &value.to_be_bytes())
}

fn milliseconds(time: Duration) -> [u8; 8] {
    (time.as_millis() as u64).to_be_bytes()
}
