//! What is not as it should be, while the node runs all the same: for the log once, and for `status` and
//! `doctor` as long as it is so.
//!
//! One board for the program, as there is one log: what is wrong is noticed in places that have nothing
//! else in common.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Limit: topics at once. There is one for each address to listen on, and a handful of others.
const TOPICS_MAX: usize = 64;

/// By topic, so that a later word about the same thing takes the place of an earlier one.
static BOARD: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Something is not as it should be. Said in the log when it is news.
pub fn set(topic: &str, text: impl Into<String>) {
    let text = text.into();
    let mut board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    let is_known = board.contains_key(topic);
    if board.get(topic) == Some(&text) || !is_known && board.len() >= TOPICS_MAX {
        return;
    }
    board.insert(topic.into(), text.clone());
    drop(board);
    // The same trouble in other words is no news for a log.
    match is_known {
        false => tracing::warn!("{text}"),
        true => tracing::debug!("{text}"),
    }
}

/// It is as it should be again.
pub fn clear(topic: &str) {
    let mut board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    let was = board.remove(topic);
    drop(board);
    if let Some(text) = was {
        tracing::info!("over: {text}");
    }
}

/// All of it, in the order of the topics.
pub fn all() -> Vec<String> {
    let board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    board.values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_on_the_board_in_its_latest_words_until_it_is_over() {
        let ours = || -> Vec<String> {
            let all = all().into_iter();
            all.filter(|text| text.contains("test of the board"))
                .collect()
        };
        set("board-test", "one, test of the board");
        set("board-test", "two, test of the board");
        assert_eq!(ours(), ["two, test of the board"]);
        clear("board-test");
        clear("board-test");
        assert!(ours().is_empty());
    }
}
