//! No tunnel: the cable itself, as the kernel makes it or with every packet alone.

use super::{Contender, Rank, Stage, Tunnel, tools};
use shadowmesh::lab::wiring;
use shadowmesh_io::lab::disable_offloads;
use std::net::IpAddr;

/// The cable.
pub struct Veth {
    /// Whether packets may travel as super-packets of 64 KB.
    pub offloads: bool,
}

impl Contender for Veth {
    fn name(&self) -> &'static str {
        if self.offloads { "veth" } else { "veth-single" }
    }

    fn rank(&self) -> Rank {
        Rank::Bare
    }

    fn setup(&self) -> &'static str {
        if self.offloads {
            "the bare cable"
        } else {
            "the bare cable, TSO, GSO and GRO off: every packet alone"
        }
    }

    fn find(&self) -> Result<String, String> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(tools::text)?;
        Ok(format!("Linux {}", release.trim()))
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        if !self.offloads {
            for netns in &stage.ends {
                netns
                    .run(|| disable_offloads(wiring::CABLE))
                    .map_err(tools::text)?;
            }
        }
        Ok(Tunnel {
            v4: Some([0, 1].map(|end| IpAddr::V4(wiring::underlay_v4(end)))),
            v6: Some([0, 1].map(|end| IpAddr::V6(wiring::underlay_v6(end)))),
            processes: Vec::new(),
        })
    }
}
