//! Real processes on real devices, in network namespaces of their own.
//!
//! One file for each kind of promise; all of them see only what a user of the machine would see: an
//! echo reply, a transferred file, an address on a device, a line of `status --json`.

mod ciphers;
mod clashes;
mod damage;
mod doctor;
mod figures;
mod host;
mod kept;
mod laboratory;
mod mesh;
mod nat;
mod neighbours;
mod other_vpn;
mod path_mtu;
mod queues;
mod relay;
mod restart;
mod roaming;
mod service;
mod start;
mod strangers;
mod support;
mod traffic_class;
mod verbs;
mod web;
mod wrong;
