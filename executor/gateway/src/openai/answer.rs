//! What a model writes, piece by piece, as the text and the tool calls of one choice.

use super::tools::{self, Tool, ToolChoice};

/// One answer while it is made. Without `Debug`.
pub(super) struct Choice {
    mode: Mode,
    text: String,
    /// Bytes of `text` that were told as it came.
    told: usize,
}

enum Mode {
    Text,
    /// Text with calls in it, perhaps.
    Calls {
        tools: Vec<Tool>,
        only_one: bool,
    },
    /// A call and nothing else.
    Forced,
}

/// One answer that has ended. Without `Debug`.
pub(super) struct Ended {
    /// All of its text, without the calls.
    pub(super) text: String,
    /// The part of it that [`Choice::push`] has not told.
    pub(super) rest: String,
    /// Name and arguments' JSON of each call.
    pub(super) calls: Vec<(String, String)>,
}

impl Choice {
    /// An answer to a request with these tools.
    pub(super) fn new(tools: &[Tool], choice: &ToolChoice, parallel: bool) -> Self {
        let mode = match choice {
            ToolChoice::None => Mode::Text,
            ToolChoice::Auto => Mode::Calls { tools: tools.to_vec(), only_one: !parallel },
            ToolChoice::Required | ToolChoice::Named(_) => Mode::Forced,
        };
        Self { mode, text: String::new(), told: 0 }
    }

    /// An answer without tools.
    pub(super) fn plain() -> Self {
        Self { mode: Mode::Text, text: String::new(), told: 0 }
    }

    /// Takes a piece; what is now certain to be text and was not before.
    pub(super) fn push(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        let certain = match self.mode {
            Mode::Text => self.text.len(),
            Mode::Calls { .. } => tools::certain_text(&self.text),
            Mode::Forced => 0,
        };
        let from = self.told;
        self.told = certain.max(from);
        &self.text[from..self.told]
    }

    /// The answer as it ended. `is_whole` is false where a limit cut it short: then a forced call is no call.
    pub(super) fn end(self, is_whole: bool) -> Ended {
        let Self { mode, text, told } = self;
        match mode {
            Mode::Text => Ended { rest: text[told..].to_owned(), text, calls: Vec::new() },
            Mode::Forced => match tools::call_of(&text).filter(|_| is_whole) {
                Some(call) => Ended { text: String::new(), rest: String::new(), calls: vec![call] },
                None => Ended { rest: text[told..].to_owned(), text, calls: Vec::new() },
            },
            Mode::Calls { tools, only_one } => {
                let mut written = tools::take_apart(&text, &tools);
                if only_one {
                    written.calls.truncate(1);
                }
                if written.calls.is_empty() {
                    return Ended { rest: text[told..].to_owned(), text, calls: Vec::new() };
                }
                // What was told before a call stands; text behind it follows.
                let rest = written.text.strip_prefix(text[..told].trim()).unwrap_or_default().to_owned();
                Ended { text: written.text, rest, calls: written.calls }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn weather() -> Vec<Tool> {
        vec![Tool { name: "weather".into(), description: None, parameters: serde_json::json!({}) }]
    }

    fn streamed(choice: &ToolChoice, answer: &str, is_whole: bool) -> (String, Ended) {
        let mut made = Choice::new(&weather(), choice, true);
        let mut told = String::new();
        for character in answer.chars() {
            told.push_str(made.push(&character.to_string()));
        }
        (told, made.end(is_whole))
    }

    #[test]
    fn text_is_told_as_it_comes() {
        let (told, ended) = streamed(&ToolChoice::None, "a <tool_call> is text here", true);
        assert_eq!(told, "a <tool_call> is text here");
        assert_eq!((ended.rest.as_str(), ended.calls.len()), ("", 0));
    }

    #[test]
    fn a_call_is_never_told_as_text() {
        let answer = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"at\": \"Oslo\"}}\n</tool_call>";
        let (told, ended) = streamed(&ToolChoice::Auto, answer, true);
        assert_eq!(told, "Let me look.\n");
        assert_eq!(ended.text, "Let me look.");
        assert_eq!(ended.rest, "");
        assert_eq!(ended.calls, [("weather".into(), "{\"at\":\"Oslo\"}".into())]);
    }

    #[test]
    fn a_call_of_an_unknown_tool_and_half_a_mark_are_text() {
        for answer in
            ["<tool_call>{\"name\": \"other\"}</tool_call>", "a < b <tool", "<tool_call>no json", "2 <"]
        {
            let (told, ended) = streamed(&ToolChoice::Auto, answer, true);
            assert_eq!(format!("{told}{}", ended.rest), answer);
            assert_eq!(ended.text, answer);
            assert!(ended.calls.is_empty());
        }
    }

    #[test]
    fn a_forced_call_that_was_cut_short_is_no_call() {
        let whole = "{\"name\":\"weather\",\"arguments\":{}}";
        let (told, ended) = streamed(&ToolChoice::Required, whole, true);
        assert_eq!((told.as_str(), ended.calls.len()), ("", 1));
        let (_, ended) = streamed(&ToolChoice::Required, &whole[..10], false);
        assert_eq!((ended.rest.as_str(), ended.calls.len()), (&whole[..10], 0));
    }

    #[test]
    fn two_calls_stay_two_unless_the_request_wants_one() {
        let call = "<tool_call>{\"name\":\"weather\"}</tool_call>";
        let answer = format!("{call}\n{call}");
        let (_, ended) = streamed(&ToolChoice::Auto, &answer, true);
        assert_eq!(ended.calls.len(), 2);
        let mut one = Choice::new(&weather(), &ToolChoice::Auto, false);
        one.push(&answer);
        assert_eq!(one.end(true).calls.len(), 1);
    }
}
