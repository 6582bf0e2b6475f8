//! The demo needs network namespaces and TUN devices. Root has them; anybody else gets them inside
//! a user namespace, where the demo starts itself again as root of that namespace only.

use std::io;
use std::process::{Command, ExitStatus};

use shadowmesh_io::netns::{Netns, in_user_namespace};

/// Set for the second start, so that a machine that refuses even there is not asked forever.
const MARK: &str = "SHADOWMESH_DEMO_IN_USER_NAMESPACE";

/// What to do before the demo itself.
#[derive(Debug)]
pub enum Privilege {
    /// Go on in this process.
    Enough,
    /// The demo ran in a process of its own, which ended so.
    RanElsewhere(ExitStatus),
}

/// Makes sure of the rights the demo needs, starting the program again in a user namespace when
/// this process has not got them.
///
/// # Errors
/// A sentence for the user when there is no way on this machine.
pub fn ensure() -> Result<Privilege, String> {
    let Err(refused) = Netns::new() else {
        return tun_is_there().map(|()| Privilege::Enough);
    };
    if std::env::var_os(MARK).is_some() {
        return Err(explain(&refused));
    }
    let program = std::env::current_exe().map_err(|error| explain(&error))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(MARK, "1");
    match in_user_namespace(&mut command).status() {
        Ok(status) => Ok(Privilege::RanElsewhere(status)),
        Err(_) => Err(explain(&refused)),
    }
}

/// The device file may be closed to ordinary users, which a user namespace does not change.
fn tun_is_there() -> Result<(), String> {
    let path = "/dev/net/tun";
    let opened = std::fs::File::options().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| {
        format!("cannot open {path}: {error}\nTry `sudo shadowmesh demo`, or `sudo modprobe tun` if the file is missing.")
    })
}

fn explain(refused: &io::Error) -> String {
    format!(
        "this machine lets neither this user nor a user namespace make network namespaces: \
         {refused}\nTry `sudo shadowmesh demo`."
    )
}
