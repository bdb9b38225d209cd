package main

import (
	"os"
	"strings"
	"testing"
)

func TestTheWorkedExampleOfTheReadmeIsTheStory(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	story, err := os.ReadFile("testdata/example.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "A worked example,")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	example, _, _ := strings.Cut(rest, "```")
	if _, script, _ := strings.Cut(string(story), "-- example.sh --\n"); example == "" || script != example {
		t.Errorf("README.md has\n%s\nthe story\n%s", example, script)
	}
}
