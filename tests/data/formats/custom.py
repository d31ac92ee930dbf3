"""A data set in llama-recipes' convention: numbers and their squares."""


def get_custom_dataset(dataset_config, tokenizer, split):
    numbers = range(1, 30) if split == "train" else range(30, 35)
    return [
        {
            "messages": [
                {"role": "user", "content": f"{number} squared?"},
                {"role": "assistant", "content": str(number**2)},
            ]
        }
        for number in numbers
    ]
