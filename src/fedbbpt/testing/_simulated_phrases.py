"""How each skill of the simulated model is described: for understanding, and for proposing.

The first lines of a skill are its anchors, those behind the rule its wordings
(see :class:`fedbbpt.testing._skills.Skill`).
"""

from __future__ import annotations

_TEXT = """
letters_list
List the letters of the word.
Write the word with a space between its letters.
Spell the word out, letter by letter.
Break the word into its letters.
Separate the characters of the word with spaces.
---
Split the word into single letters with spaces between them.
Put a space between all characters of the word.
Spell out the input word.
Write down every letter of the word, one after the other.

first_letter
Write the first letter of the word.
What is the first character of the word?
Extract the initial letter of the word.
Give only the letter that the word begins with.
---
Take the first letter of the input.
Output the first character of the given word.
Write down which letter the word starts with.
Give the initial of the word.

second_letter
Write the second letter of the word.
What is the second character of the word?
Extract the letter in the second position of the word.
Give the letter that follows the first one.
---
Take the second letter of the input.
Output the second character of the given word.
Write down the letter at position two.
Pick the second letter of the word.

last_letter
Write the last letter of the word.
What is the final character of the word?
Extract the letter at the end of the word.
Give only the letter that the word ends with.
---
Take the last letter of the input.
Output the final letter of the given word.
Write down which letter the word ends in.
Give the last character of the word.

count_letters
Count the letters of the word.
How many letters does the word have?
Write the number of characters in the word.
Give the length of the word.
How many letters are there in the word?
---
Say how many letters are in the input word.
Output the number of letters in the word.
Write the length of the input word.
Count how many characters the word has.

uppercase
Write the word in capital letters.
Convert the text to upper case.
Capitalise every letter of the word.
Write the input in all caps.
---
Change all letters to uppercase.
Output the word in capitals.
Turn the input into upper case letters.
Make every letter a capital letter.

reverse
Write the word backwards.
Reverse the order of the letters in the word.
Spell the word from the end to the beginning.
Write the input in reverse.
---
Reverse the word.
Output the letters of the word in reverse order.
Turn the word around so that it reads backwards.
Write the characters backwards.

plural
Write the plural form of the word.
Make the singular noun plural.
What is the plural of the word?
Turn the noun from singular into plural.
---
Give the plural of the noun.
Output the word in its plural form.
Pluralise the input word.
Change the singular noun to its plural.

antonym
Write the opposite of the word.
What is an antonym of the word?
Write a word that means the opposite of the input.
Give the word with the contrary meaning.
---
Find the antonym of the word.
Output a word with the opposite meaning.
Name the opposite of the given word.
Give an antonym for the input.

rhyme
Write a word that rhymes with the word.
Find a rhyme for the word.
Which word rhymes with the input?
Give a word that ends in the same sound.
---
Name a word that rhymes with the input word.
Output a rhyming word.
Give a rhyme of the given word.
Think of a word that rhymes with this one.

french
Translate the word into French.
What is the French word for the English word?
Write the word in French.
Translate from English to French.
---
Give the French translation of the word.
Output the word in the French language.
Say the English word in French.
Convert the English word to French.

german
Translate the word into German.
What is the German word for the English word?
Write the word in German.
Translate from English to German.
---
Give the German translation of the word.
Output the word in the German language.
Say the English word in German.
Convert the English word to German.

sum
Write the sum of the two numbers.
Add the two numbers.
What is the first number plus the second number?
Calculate the total of the numbers.
---
Sum the numbers in the input.
Add both numbers together and write the result.
Output the total of the two numbers.
Compute the sum of the given numbers.

difference
Write the difference of the two numbers.
Subtract the second number from the first.
What is the first number minus the second number?
Take the second number away from the first.
---
Subtract the two numbers.
Output the first number minus the second.
Compute the difference between the given numbers.
Calculate the first number less the second one.

product
Write the product of the two numbers.
Multiply the two numbers.
What is the first number times the second number?
Calculate the result of the multiplication.
---
Multiply both numbers and write the result.
Output the first number times the second.
Compute the product of the given numbers.
Multiply the first number by the second.

larger_number
Write the larger of the two numbers.
Which number is bigger?
What is the maximum of the two numbers?
Give the greater number.
---
Choose the bigger number of the two.
Output the largest of the given numbers.
Find the greater of the two numbers.
Pick the maximum of the numbers.

smaller_number
Write the smaller of the two numbers.
Which number is less?
What is the minimum of the two numbers?
Give the lesser number.
---
Choose the smaller number of the two.
Output the smallest of the given numbers.
Find the lower of the two numbers.
Pick the minimum of the numbers.

number_words
Write the number in words.
Spell out the number in English.
Convert the digits into words.
How is the number said in words?
---
Write out the numeral in English words.
Output the number written in words.
Turn the digits into English words.
Express the number in words.

first_word
Write the first word of the sentence.
What is the first word in the sentence?
Extract the word at the beginning of the sentence.
Give only the word that the sentence begins with.
---
Take the first word of the text.
Output the first word of the given sentence.
Write down which word the sentence starts with.
Copy the first word of the sentence.

last_word
Write the last word of the sentence.
What is the final word in the sentence?
Extract the word at the end of the sentence.
Give only the word that the sentence ends with.
---
Take the last word of the text.
Output the final word of the given sentence.
Write down which word the sentence ends with.
Copy the last word of the sentence.

count_words
Count the words.
How many words are there?
Write the number of words in the text.
Give the word count of the input.
---
Say how many words the text has.
Output the number of words.
Count how many words are listed.
Find the number of words in the input.

sort_words
Sort the words alphabetically.
Write the words in alphabetical order.
Put the list of words in order from A to Z.
Arrange the words by the alphabet.
---
Order the words alphabetically.
Output the list in alphabetical order.
Alphabetise the words of the input.
Sort the given words from A to Z.

starting_with
Write the word of the sentence that starts with the letter in brackets.
Find the word that begins with the given letter.
Extract the words starting with the letter in square brackets.
Which word in the sentence starts with the letter?
---
Output the word from the sentence beginning with the bracketed letter.
Pick the word of the sentence that starts with the given letter.
Look for a word that begins with the letter in the brackets.
Copy the word which starts with the letter shown in brackets.
"""


def _read(text: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Name -> anchors, wordings."""
    found = {}
    for block in text.strip().split("\n\n"):
        name, *lines = block.split("\n")
        rule = lines.index("---")
        found[name] = (tuple(lines[:rule]), tuple(lines[rule + 1 :]))
    return found


PHRASES = _read(_TEXT)

VAGUE = (
    "Do what the examples show.",
    "Write the right answer.",
    "Look at the input and write something about it.",
    "Change the input.",
    "Follow the pattern.",
    "Answer briefly.",
)
"""What the writer says when it has understood nothing."""

FRAMES = (
    "{}",
    "{}",
    "Please {lower}",
    "For each input, {lower}",
    "Your task: {lower}",
    "{} Give only the answer.",
    "Read the input. {}",
)
"""What the writer puts around a wording: as it stands, or with its first letter in lower case."""
