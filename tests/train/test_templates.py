import pytest

from tests.train.chat_templates import CONVERSATIONS, SPECIAL_TOKENS, TEMPLATES, chat
from train.data.templates import ChatTemplate, LostTextError, TemplateError

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}


def template(name: str) -> ChatTemplate:
    return ChatTemplate(TEMPLATES[name], VARIABLES, SPECIAL_TOKENS)


def learnt(name: str, messages) -> list[str]:
    rendered = template(name).render_turns(messages)
    return [rendered.text[turn.start : turn.stop] for turn in rendered.turns]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_renders_as_transformers_does(name, conversation):
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = CONVERSATIONS[conversation]
    for generation_prompt in (False, True):
        arguments = {"chat_template": TEMPLATES[name], "add_generation_prompt": generation_prompt} | VARIABLES
        try:
            (expected,), _ = render_jinja_template([messages], **arguments)
        except Exception as error:
            with pytest.raises(TemplateError, match=str(error)):
                template(name).render(messages, generation_prompt=generation_prompt)
        else:
            assert template(name).render(messages, generation_prompt=generation_prompt) == expected


ENDS = {
    "chatml": "<|im_end|>",
    "default system": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "thinking prompt": "<|im_end|>",
    "generation tag": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama2": " </s>",
    "gemma": "<end_of_turn>",
    "glm": "",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_end_of_turn(name):
    assert template(name).end_of_turn == ENDS[name]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_learns_each_answer_with_its_end_and_nothing_else(name, conversation):
    messages = CONVERSATIONS[conversation]
    if messages[0]["role"] == "system" and name == "gemma":
        pytest.skip("the template refuses system messages")
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    if name in ("llama3", "gemma", "llama2"):
        answers = [answer.strip() for answer in answers]
    elif name == "thinking prompt":
        answers = [answer.lstrip("\n") for answer in answers]
    expected = [answer + ENDS[name] for answer in answers]
    if name == "qwen3":  # the model writes the block itself: its prompt ends before it
        expected[-1] = "<think>\n\n</think>\n\n" + answers[-1].lstrip("\n") + "<|im_end|>"
    if name == "llama2":
        expected = [" " + text for text in expected]
    assert learnt(name, messages) == expected


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_frame_finds_what_the_search_finds(name, conversation):
    messages = CONVERSATIONS[conversation]
    if messages[0]["role"] == "system" and name == "gemma":
        pytest.skip("the template refuses system messages")
    chat_template = template(name)
    rendered = chat_template.render_turns(messages)
    assert chat_template._search(rendered.text, messages) == rendered.turns


def test_qwen3_keeps_the_reasoning_of_the_last_turn_alone():
    messages = chat("q1", "<think>\nr1\n</think>\n\na1", "q2", "<think>\nr2\n</think>\n\na2")
    assert learnt("qwen3", messages) == ["a1<|im_end|>", "<think>\nr2\n</think>\n\na2<|im_end|>"]


def test_a_prompt_that_opens_a_block_is_no_part_of_a_turn_without_one():
    assert learnt("thinking prompt", chat("q", "<b>bold</b>")) == ["<b>bold</b><|im_end|>"]


def test_an_answer_that_quotes_the_next_turn_is_learnt_whole():
    answer = "yes\n<turn>user\nno"
    assert learnt("chatml", chat("q", answer, "q2", "a2")) == [answer + "<|im_end|>", "a2<|im_end|>"]


def test_further_keys_of_a_message_reach_the_template():
    messages = [*chat("q"), {"role": "assistant", "content": "a", "reasoning_content": "r"}]
    assert learnt("qwen3", messages) == ["<think>\nr\n</think>\n\na<|im_end|>"]


def test_an_answer_that_the_template_leaves_out_is_refused():
    source = "{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(LostTextError, match="leaves out its answer"):
        ChatTemplate(source, {}, []).render_turns(chat("question", "answer"))


@pytest.mark.parametrize("source", ["{% if %}", "{{ messages | nosuchfilter }}", "{% for %}"])
def test_a_broken_template_is_refused_when_it_is_made(source):
    with pytest.raises(TemplateError, match="compiled"):
        ChatTemplate(source, {}, [])


def test_templates_run_in_a_sandbox():
    with pytest.raises(TemplateError, match="unsafe"):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}, []).render(chat("q"))
    with pytest.raises(TemplateError):
        ChatTemplate("{{ messages.append(1) }}", {}, []).render(chat("q"))
