//! Schemas of fields and responses that have several forms, for the OpenAPI description.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// A text or a list of texts.
pub fn texts() -> OneOfBuilder {
    let description = "A text or a list of texts. Token ids are refused.";
    one_of([text(), list_of(text())]).description(Some(description))
}

/// The `inputs` of `/predict`.
pub fn texts_to_predict() -> OneOfBuilder {
    let description = "A text; a list of one text or of a pair (`[\"a\", \"b\"]`); or a list of such lists.";
    let item = one_of([text(), list_of(text())]);
    one_of([text(), list_of(item.into())]).description(Some(description))
}

/// The `inputs` of Hugging Face's clients.
pub fn hugging_face_inputs() -> OneOfBuilder {
    let description = "A text; a pair `{\"text\", \"text_pair\"}`; a question `{\"question\", \"context\"}`; a list of \
                       these; or `{\"source_sentence\", \"sentences\"}` for similarities.";
    let item = one_of([text(), object()]);
    one_of([text(), object(), list_of(item.into())]).description(Some(description))
}

/// The response of a model, which depends on its task.
#[derive(Debug)]
pub struct TaskResponse;

impl PartialSchema for TaskResponse {
    fn schema() -> RefOr<Schema> {
        let description = "A list of labels, entities, tags, tokens, vectors or similarities; an object for an answer.";
        let anything = RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(SchemaType::AnyValue).build()));
        one_of([list_of(anything), object()]).description(Some(description)).into()
    }
}

impl ToSchema for TaskResponse {}

fn one_of<const FORMS: usize>(forms: [RefOr<Schema>; FORMS]) -> OneOfBuilder {
    forms.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item)
}

fn list_of(item: RefOr<Schema>) -> RefOr<Schema> {
    ArrayBuilder::new().items(item).into()
}

fn text() -> RefOr<Schema> {
    Object::with_type(Type::String).into()
}

fn object() -> RefOr<Schema> {
    Object::with_type(Type::Object).into()
}
