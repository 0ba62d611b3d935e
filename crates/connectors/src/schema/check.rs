//! What has to fit together in a connector.

use std::collections::BTreeSet;

use super::{
    Connector, FieldProblem, Incremental, Order, Paging, Range, RequestShape, Stream, Template,
    Variable,
};

impl Connector {
    /// Everything that does not fit together, by field.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut found = Found::default();
        found.check(
            is_name(&self.provider),
            "provider",
            "must be small letters, digits, hyphens and underscores",
        );
        found.check(
            !self.display_name.is_empty(),
            "display_name",
            "must not be empty",
        );
        found.check(
            self.docs_url.starts_with("https://"),
            "docs_url",
            "must be an address",
        );
        found.check(
            !self.streams.is_empty(),
            "streams",
            "must have at least one",
        );
        let mut names = BTreeSet::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let path = format!("streams[{index}]");
            found.check(
                names.insert(&stream.name),
                &format!("{path}.stream"),
                "must be another than those before",
            );
            stream.check(&path, &mut found);
        }
        found.problems
    }
}

impl Stream {
    fn check(&self, path: &str, found: &mut Found) {
        let at = |field: &str| format!("{path}.{field}");
        found.check(
            is_name(&self.name),
            &at("stream"),
            "must be small letters, digits, hyphens and underscores",
        );
        found.check(
            !self.display_name.is_empty(),
            &at("display_name"),
            "must not be empty",
        );
        found.check(self.page_size > 0, &at("page_size"), "must be at least 1");
        found.check(
            self.default_cadence.as_secs() >= 60,
            &at("default_cadence"),
            "must be a minute or more",
        );
        if let Some(template) = &self.record.content_url {
            let known = [Variable::Id, Variable::Account];
            let fits = template
                .variables()
                .all(|variable| known.contains(&variable));
            found.check(
                fits,
                &at("record.content_url"),
                "can have {id} and {account} only",
            );
        }
        let backfill = &self.backfill;
        check_request(&backfill.request, &at("backfill.request"), found);
        check_paging(
            &backfill.paging,
            Some(&backfill.request),
            &at("backfill"),
            found,
        );
        if backfill.range == Range::Window {
            found.check(
                uses(&backfill.request, Variable::From),
                &at("backfill.request"),
                "must ask for the window that begins at {from}",
            );
        }
        found.check(
            backfill.slice.is_none()
                || (backfill.range == Range::Window && uses(&backfill.request, Variable::Until)),
            &at("backfill.slice"),
            "needs `range: window`, and a request with {from} and {until}",
        );
        self.check_incremental(&at("incremental"), found);
        if let Some(single) = &self.single {
            check_request(&single.request, &at("single.request"), found);
            found.check(
                uses(&single.request, Variable::Id),
                &at("single.request"),
                "must ask for the record {id}",
            );
            found.check(
                !single.gone.status.is_empty() && !single.gone.is.is_empty(),
                &at("single.gone"),
                "must name a status and a word",
            );
        }
    }

    fn check_incremental(&self, path: &str, found: &mut Found) {
        let at = |field: &str| format!("{path}.{field}");
        match &self.incremental {
            None => {}
            Some(Incremental::Time {
                request, paging, ..
            }) => {
                check_request(request, &at("request"), found);
                check_paging(paging, Some(request), path, found);
                found.check(
                    uses(request, Variable::From),
                    &at("request"),
                    "must ask for what was changed since {from}",
                );
            }
            Some(Incremental::Delta {
                mark,
                request,
                paging,
                ..
            }) => {
                if let Some(mark) = mark {
                    check_request(&mark.request, &at("mark.request"), found);
                }
                if let Some(request) = request {
                    check_request(request, &at("request"), found);
                    found.check(
                        uses(request, Variable::Cursor),
                        &at("request"),
                        "must send the {cursor}",
                    );
                }
                let follows = matches!(
                    paging,
                    Paging::NextUrl { .. } | Paging::Cursor { .. } | Paging::Single
                );
                found.check(
                    follows,
                    &at("paging"),
                    "must be next_url, cursor or single: changes have no other order",
                );
                found.check(
                    !matches!(paging, Paging::Cursor { .. }) || request.is_some(),
                    &at("request"),
                    "is needed to send the next page's {cursor}",
                );
                found.check(
                    mark.is_some() != self.backfill.done.is_some(),
                    &at("mark"),
                    "the first cursor comes either by `mark` or by `backfill.done`",
                );
            }
            Some(Incremental::Whole) => found.check(
                self.backfill.range == Range::Whole,
                &at("kind"),
                "`whole` needs `backfill.range: whole`, or else what is older than the window would seem gone",
            ),
        }
    }
}

#[derive(Default)]
struct Found {
    problems: Vec<FieldProblem>,
}

impl Found {
    fn check(&mut self, ok: bool, field: &str, description: &str) {
        if !ok {
            self.problems.push(FieldProblem::new(field, description));
        }
    }
}

fn check_request(request: &RequestShape, path: &str, found: &mut Found) {
    found.check(
        request.path.as_str().starts_with('/'),
        &format!("{path}.path"),
        "must begin with a slash",
    );
    for name in request.headers.keys() {
        let is_header = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        found.check(
            is_header && !name.eq_ignore_ascii_case("authorization"),
            &format!("{path}.headers.{name}"),
            "must be a header's name, and not the one that the connection brings",
        );
    }
}

fn check_paging(paging: &Paging, request: Option<&RequestShape>, path: &str, found: &mut Found) {
    let needed = match paging {
        Paging::Single | Paging::NextUrl { .. } => None,
        Paging::Pages { .. } => Some(Variable::Page),
        Paging::Cursor { .. } => Some(Variable::Cursor),
        Paging::Keyset {
            order: Order::Ascending,
            ..
        } => Some(Variable::From),
        Paging::Keyset {
            order: Order::Descending,
            ..
        } => Some(Variable::Until),
    };
    let (Some(needed), Some(request)) = (needed, request) else {
        return;
    };
    let sentence = format!("must send {{{}}}, which its paging needs", needed.name());
    found.check(uses(request, needed), &format!("{path}.request"), &sentence);
}

fn uses(request: &RequestShape, variable: Variable) -> bool {
    let has = |template: &Template| template.variables().any(|found| found == variable);
    has(&request.path) || request.query.values().any(has) || request.headers.values().any(has)
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    !text.is_empty() && text.len() <= 64 && text.bytes().all(fits)
}
