//! What several targets read their input as.

#![forbid(unsafe_code)]

/// A list of steps: a kind, a length, and as many bytes of what is left.
pub fn steps(mut input: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, len], rest) = input.split_first_chunk::<2>()?;
        let (bytes, after) = rest.split_at(usize::from(*len).min(rest.len()));
        input = after;
        Some((*kind, *len, bytes))
    })
}
