//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Column, View};

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Quit,
    Nothing,
}

/// Rows that a page key moves by.
const PAGE: usize = 10;
/// Longest filter, in characters: a plugin's whole name.
const FILTER_MAX: usize = 101;

/// Keys that sort, as the help shows them.
pub(super) const SORTS: [(char, Column, &str); 9] = [
    ('n', Column::Plugin, "name"),
    ('s', Column::State, "state, trouble first"),
    ('c', Column::Calls, "calls"),
    ('e', Column::Errors, "errors"),
    ('t', Column::P50, "time of half the calls"),
    ('l', Column::P99, "time of the slowest in 100"),
    ('u', Column::Cpu, "processor"),
    ('m', Column::Memory, "memory"),
    ('r', Column::Restarts, "restarts"),
];

/// Does what a key says.
pub(super) fn press(view: &mut View, key: KeyEvent) -> Next {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Nothing };
    }
    if view.typing {
        return typed(view, key.code);
    }
    match key.code {
        KeyCode::Char('q') => return Next::Quit,
        KeyCode::Esc if view.help => view.help = false,
        KeyCode::Esc if !view.filter.is_empty() => view.filter.clear(),
        KeyCode::Char('?' | 'h') => view.help = !view.help,
        KeyCode::Char('/') => view.typing = true,
        KeyCode::Char('p') => view.paused = !view.paused,
        KeyCode::Up => view.chosen = view.chosen.saturating_sub(1),
        KeyCode::Down => view.chosen = view.chosen.saturating_add(1),
        KeyCode::PageUp => view.chosen = view.chosen.saturating_sub(PAGE),
        KeyCode::PageDown => view.chosen = view.chosen.saturating_add(PAGE),
        KeyCode::Home => view.chosen = 0,
        KeyCode::End => view.chosen = usize::MAX,
        KeyCode::Char(letter) => {
            let Some((_, column, _)) = SORTS.iter().find(|(key, _, _)| *key == letter) else {
                return Next::Nothing;
            };
            view.reversed = view.sort == *column && !view.reversed;
            view.sort = *column;
        }
        _ => return Next::Nothing,
    }
    Next::Draw
}

fn typed(view: &mut View, code: KeyCode) -> Next {
    match code {
        KeyCode::Enter => view.typing = false,
        KeyCode::Esc => {
            view.typing = false;
            view.filter.clear();
        }
        KeyCode::Backspace => {
            view.filter.pop();
        }
        KeyCode::Char(letter) if view.filter.chars().count() < FILTER_MAX => {
            view.filter.push(letter);
        }
        _ => return Next::Nothing,
    }
    view.chosen = 0;
    Next::Draw
}
