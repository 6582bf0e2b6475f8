//! The session to send in, for each member by its number: an array of which snapshots hold a version each.
//!
//! Versions share the pieces in which they are the same, so a change costs a piece and the list of pieces,
//! and finding a member's session one step more than in a plain array.

use std::sync::Arc;

use shadowmesh_net::Outbound;

/// Members in a piece: about the root of ten thousand of them, where both parts of the cost of a change are
/// the same.
const PIECE: usize = 128;

type Place = Option<Arc<Outbound>>;

/// The array.
#[derive(Clone, Debug)]
pub(crate) struct Outbounds(Arc<[Arc<[Place; PIECE]>]>);

impl Outbounds {
    /// One place for each of these, by number.
    pub(crate) fn new(places: impl IntoIterator<Item = Place>) -> Self {
        let mut places = places.into_iter().peekable();
        let mut pieces = Vec::new();
        while places.peek().is_some() {
            let piece = std::array::from_fn(|_| places.next().flatten());
            pieces.push(Arc::new(piece));
        }
        Self(pieces.into())
    }

    /// The session of a member. HOT PATH.
    pub(crate) fn get(&self, member: usize) -> Option<&Arc<Outbound>> {
        self.0[member / PIECE][member % PIECE].as_ref()
    }

    /// Puts another in its place.
    pub(crate) fn set(&mut self, member: usize, outbound: Place) {
        let pieces = Arc::make_mut(&mut self.0);
        Arc::make_mut(&mut pieces[member / PIECE])[member % PIECE] = outbound;
    }
}
