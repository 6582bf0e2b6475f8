use crate::failure::Outcome;
pub fn run(_arguments: &[String]) -> Outcome {
    Ok(())
}
