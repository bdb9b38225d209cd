package fs

import (
	"fmt"
	"testing"

	"github.com/keifs/keifs/store"
)

func TestANumberIsTheSameInEveryMount(t *testing.T) {
	a, b := newNumbers(), newNumbers()
	dir := store.NumberDir("main", "docs")
	first, _ := a.claim(store.Number(dir, "a.txt"))
	second, _ := b.claim(store.Number(dir, "a.txt"))
	// It is written down, since it must not change with a release either.
	const want = 5446608486094253243
	if first != want || second != want {
		t.Errorf("numbers %d and %d, want %d", first, second, uint64(want))
	}
}

func TestTwoLiveNodesNeverShareANumber(t *testing.T) {
	n := newNumbers()
	hash := store.Number(store.NumberDir("main", ""), "a")
	seen := map[uint64]bool{}
	type claimed struct{ number, serial uint64 }
	var all []claimed
	for range 100 {
		expected := n.peek(hash)
		number, serial := n.claim(hash)
		if seen[number] || number <= rootNumber || number>>63 != 0 || number != expected {
			t.Fatalf("number %d, expected %d, seen before: %v", number, expected, seen[number])
		}
		seen[number] = true
		all = append(all, claimed{number, serial})
	}
	for _, c := range all {
		n.release(c.number, c.serial)
		n.release(c.number, c.serial)
	}
	if number, _ := n.claim(hash); number != hash {
		t.Errorf("after all were released: %d, want %d", number, hash)
	}
}

func TestALateReleaseDoesNotFreeTheNextOwnersNumber(t *testing.T) {
	n := newNumbers()
	number, old := n.claim(42)
	n.release(number, old)
	if again, _ := n.claim(42); again != number {
		t.Fatalf("got %d, want %d", again, number)
	}
	n.release(number, old)
	if n.peek(42) == number {
		t.Error("the number is free although it has an owner")
	}
}

func TestTheReservedNumbersAreNotGiven(t *testing.T) {
	n := newNumbers()
	for hash := range uint64(rootNumber + 1) {
		if number, _ := n.claim(hash); number <= rootNumber {
			t.Errorf("hash %d got number %d", hash, number)
		}
	}
}

func TestNamesOfALargeDirectoryGetDifferentNumbers(t *testing.T) {
	seen := map[uint64]string{}
	for d := range 10 {
		dir := store.NumberDir("main", fmt.Sprint("d", d))
		for i := range 10_000 {
			name := fmt.Sprint("file", i)
			number := store.Number(dir, name)
			if other, twice := seen[number]; twice {
				t.Fatalf("d%d/%s and %s both have %d", d, name, other, number)
			}
			seen[number] = fmt.Sprintf("d%d/%s", d, name)
		}
	}
}
