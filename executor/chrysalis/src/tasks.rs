//! Summaries and translations as tasks of any model that answers conversations: what is said to it.

use contracts::sealing::ChatMessage;

/// Asks for a summary of `text`.
pub(crate) fn summarise(text: &str) -> Vec<ChatMessage> {
    asked(
        "Summarise the text below in a few sentences, in its own language. Answer with the summary alone.",
        text,
    )
}

/// Asks for `text` in `language`, which is named as people name it.
pub(crate) fn translate(text: &str, language: &str) -> Vec<ChatMessage> {
    let order = format!("Translate the text below into {language}. Answer with the translation alone.");
    asked(&order, text)
}

/// Order and text in one turn of the user: some templates know no system. The text comes last and between marks, so that what
/// it says is less easily taken for an order.
fn asked(order: &str, text: &str) -> Vec<ChatMessage> {
    vec![ChatMessage::new("user", format!("{order}\n\n<text>\n{text}\n</text>"))]
}
