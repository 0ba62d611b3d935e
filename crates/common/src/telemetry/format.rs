//! Lines of the log: an event, with the fields of the spans around it and the trace that it belongs to.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter as _;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::LogFormat;
use crate::{Clock as _, SystemClock};

const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const TIME_OF_DAY: &[BorrowedFormatItem<'_>] =
    format_description!("[hour]:[minute]:[second].[subsecond digits:3]");

/// Names that the line itself has; a field of the same name is written as `field.<name>`.
const RESERVED: [&str; 7] = [
    "timestamp",
    "level",
    "target",
    "message",
    "span",
    "trace_id",
    "span_id",
];

/// Writes one line an event.
pub(super) struct LogLayer {
    style: Style,
    writer: BoxMakeWriter,
}

#[derive(Clone, Copy)]
enum Style {
    Json,
    Readable { colours: bool },
}

/// Fields in the order in which they were recorded; a later value takes an earlier one's place.
#[derive(Clone, Default)]
struct Fields(Vec<(Cow<'static, str>, Value)>);

struct Line<'a> {
    time: OffsetDateTime,
    level: Level,
    target: Cow<'a, str>,
    message: String,
    fields: Fields,
    span: Option<&'static str>,
    trace: Option<(String, String)>,
}

impl LogLayer {
    #[expect(
        clippy::disallowed_methods,
        reason = "NO_COLOR is every program's, and no setting of ours"
    )]
    pub(super) fn new(format: LogFormat, writer: BoxMakeWriter) -> Self {
        let terminal = io::stderr().is_terminal();
        let style = match format {
            LogFormat::Json => Style::Json,
            LogFormat::Auto if !terminal => Style::Json,
            LogFormat::Auto | LogFormat::Pretty => Style::Readable {
                colours: terminal && std::env::var_os("NO_COLOR").is_none(),
            },
        };
        Self { style, writer }
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = Line::new(event, &context);
        let text = match self.style {
            Style::Json => line.json(),
            Style::Readable { colours } => line.readable(colours),
        };
        // A log that cannot be written has nowhere to say so.
        let _ = self
            .writer
            .make_writer_for(event.metadata())
            .write_all(text.as_bytes());
    }
}

impl<'a> Line<'a> {
    fn new<S>(event: &'a Event<'_>, context: &Context<'_, S>) -> Self
    where
        S: Subscriber + for<'b> LookupSpan<'b>,
    {
        let mut fields = Fields::default();
        let mut span_name = None;
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(Scope::from_root)
        {
            span_name = Some(span.name());
            if let Some(of_span) = span.extensions().get::<Fields>() {
                for (name, value) in &of_span.0 {
                    // `otel.*` steers the tracing layer and says nothing to a reader.
                    if !name.starts_with("otel.") {
                        fields.set(name.clone(), value.clone());
                    }
                }
            }
        }
        event.record(&mut fields);

        let mut target = Cow::Borrowed(event.metadata().target());
        if target == "log" {
            // From a crate that logs with `log`: where it came from is in fields.
            if let Some(Value::String(real)) = fields.take("log.target") {
                target = Cow::Owned(real);
            }
            fields.0.retain(|(name, _)| !name.starts_with("log."));
        }
        let message = match fields.take("message") {
            Some(Value::String(message)) => message,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let span = OtelContext::map_current(|context| context.span().span_context().clone());
        Self {
            time: SystemClock.now(),
            level: *event.metadata().level(),
            target,
            message,
            fields,
            span: span_name,
            trace: span
                .is_valid()
                .then(|| (span.trace_id().to_string(), span.span_id().to_string())),
        }
    }

    fn json(&self) -> String {
        let mut object = Object::new();
        object.put("timestamp", &Value::from(stamp(self.time, TIMESTAMP)));
        object.put("level", &Value::from(self.level.as_str()));
        object.put("target", &Value::from(self.target.as_ref()));
        object.put("message", &Value::from(self.message.as_str()));
        for (name, value) in &self.fields.0 {
            if RESERVED.contains(&name.as_ref()) {
                object.put(&format!("field.{name}"), value);
            } else {
                object.put(name, value);
            }
        }
        if let Some(span) = self.span {
            object.put("span", &Value::from(span));
        }
        if let Some((trace, span)) = &self.trace {
            object.put("trace_id", &Value::from(trace.as_str()));
            object.put("span_id", &Value::from(span.as_str()));
        }
        object.finish()
    }

    fn readable(&self, colours: bool) -> String {
        let paint = |code: &'static str| if colours { code } else { "" };
        let (dim, plain) = (paint("\x1b[2m"), paint("\x1b[0m"));
        let level = match self.level {
            Level::ERROR => paint("\x1b[1;31m"),
            Level::WARN => paint("\x1b[33m"),
            Level::INFO => paint("\x1b[32m"),
            _ => dim,
        };
        let mut line = format!(
            "{dim}{}{plain} {level}{:>5}{plain} {} {dim}{}",
            stamp(self.time, TIME_OF_DAY),
            self.level,
            Escaped(&self.message),
            self.target,
        );
        for (name, value) in &self.fields.0 {
            // Writing to a string does not fail.
            let _ = match value {
                Value::String(text) if is_word(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        if let Some((trace, _)) = &self.trace {
            let _ = write!(line, " trace_id={trace}");
        }
        line.push_str(plain);
        line.push('\n');
        line
    }
}

/// A message with its control characters made visible, so that what came from outside cannot forge a line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                // Errors with several problems have a line for each.
                '\n' => f.write_str("\n    ")?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A JSON object in the order in which it is written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn put(&mut self, name: &str, value: &Value) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}:{value}", Value::from(name));
    }

    fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

impl Fields {
    fn set(&mut self, name: Cow<'static, str>, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(index).1)
    }

    fn record(&mut self, field: &Field, value: impl Into<Value>) {
        // `r#type = …` is how a field gets a keyword's name.
        let name = field.name();
        self.set(
            Cow::Borrowed(name.strip_prefix("r#").unwrap_or(name)),
            value.into(),
        );
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    /// An error and what caused it, since no error's Display repeats its source.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record(field, chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"));
    }
}

/// An error and its sources, as `this: because of that: because of this`.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn stamp(time: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) -> String {
    time.format(format)
        .expect("the formats name only parts that a time has")
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"')
}
