//! What the post-quantum handshake costs.

use super::{Measured, program};

/// Shown, not bounded: the promise is that the figures stand beside the classical ones of the same
/// run.
pub fn run() -> Result<Measured, String> {
    let values = program::json(&["bench", "handshake"])?;
    Ok(Measured {
        pass: true,
        figure: values.to_string(),
        values,
    })
}
