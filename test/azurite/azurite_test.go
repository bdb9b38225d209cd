package azurite_test

import (
	"testing"

	"github.com/keifs/keifs/test/azurite"
)

func TestAnObjectOfTheServerIsReadBack(t *testing.T) {
	s := azurite.Shared(t)
	name := s.NewContainer(t)
	s.Put(t, name, "dir/a b", []byte("content"), nil)
	if got, _ := s.Get(t, name, "dir/a b"); string(got) != "content" {
		t.Errorf("%q", got)
	}
}
