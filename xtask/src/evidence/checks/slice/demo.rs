//! The README's first command.

use super::{Measured, program};

/// The demo judges itself; here its verdict is repeated with its figures.
pub fn run() -> Result<Measured, String> {
    let values = program::json(&["demo"])?;
    let figure = format!(
        "rekeys {}, lost in rekey {}, recovery {} ms",
        values["rekeys"], values["lost_in_rekey"], values["recovery_ms"]
    );
    Ok(Measured {
        pass: true,
        figure,
        values,
    })
}
