//! Just enough of Rust's grammar to tell code from what is said about it.

use std::iter::Peekable;
use std::str::Chars;

/// The code alone: comments, the content of literals, and everything from the unit tests on are left out. Lines stay.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut before = ' ';
    while let Some(character) = rest.next() {
        match (character, rest.peek()) {
            ('/', Some('/')) => skip_line(&mut rest),
            ('/', Some('*')) => skip_block(&mut rest, &mut code),
            ('"', _) => skip_string(&mut rest, &mut code),
            ('r', Some('"' | '#')) if !is_word(before) || before == 'b' => {
                skip_raw(&mut rest, &mut code);
            }
            ('\'', _) => skip_character(&mut rest),
            _ => code.push(character),
        }
        before = character;
    }
    match code.find("#[cfg(test)]\nmod ") {
        Some(tests)
            if code[tests..]
                .lines()
                .nth(1)
                .is_some_and(|line| line.ends_with('{')) =>
        {
            code[..tests].to_owned()
        }
        _ => code,
    }
}

/// The identifiers and keywords, with the number of the line that each stands in.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        line.split(|character| !is_word(character))
            .filter(|word| !word.is_empty())
            .map(move |word| (number + 1, word))
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn skip_line(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|&character| character != '\n').is_some() {}
}

fn skip_block(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    let mut depth = 0;
    let mut before = '/';
    for character in rest.by_ref() {
        match (before, character) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {}
        }
        keep_line(character, code);
        if depth == 0 {
            return;
        }
        before = character;
    }
}

fn skip_string(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    code.push_str("\"\"");
    while let Some(character) = rest.next() {
        keep_line(character, code);
        match character {
            '"' => return,
            '\\' => {
                if let Some(escaped) = rest.next() {
                    keep_line(escaped, code);
                }
            }
            _ => {}
        }
    }
}

/// A raw string or a raw identifier: `r#"…"#`, `r#type`.
fn skip_raw(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    let mut hashes = 0;
    while rest.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if rest.next_if_eq(&'"').is_none() {
        return;
    }
    code.push_str("\"\"");
    while let Some(character) = rest.next() {
        keep_line(character, code);
        if character == '"' && (0..hashes).all(|_| rest.next_if_eq(&'#').is_some()) {
            return;
        }
    }
}

/// A character, or the tick of a lifetime, which leaves its name behind as a word.
fn skip_character(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), _) => {
            rest.next();
            rest.next();
            while rest.next().is_some_and(|character| character != '\'') {}
        }
        (Some(_), Some('\'')) => {
            rest.next();
            rest.next();
        }
        _ => {}
    }
}

fn keep_line(character: char, code: &mut String) {
    if character == '\n' {
        code.push('\n');
    }
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = r##"// tonic
/* tonic /* tonic */ tonic */ use a;
const B: &str = "tonic \" tonic";
const C: &str = r#"tonic " tonic"#; fn d<'e>(f: &'e str) -> char { '"' } // tonic
fn g(r#type: u8) -> char { '\'' }
#[cfg(test)]
mod tests {
    use tonic;
}
"##;
    let code = code(text);
    assert!(!words(&code).any(|(_, word)| word == "tonic"), "{code}");
    for (line, word) in [
        (2, "a"),
        (3, "B"),
        (4, "C"),
        (4, "d"),
        (4, "char"),
        (5, "g"),
        (5, "type"),
        (5, "char"),
    ] {
        assert!(
            words(&code).any(|found| found == (line, word)),
            "{word} in line {line} of {code}"
        );
    }
}
