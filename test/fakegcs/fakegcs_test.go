package fakegcs_test

import (
	"testing"

	"github.com/keifs/keifs/test/fakegcs"
)

func TestAnObjectOfTheServerIsReadBack(t *testing.T) {
	s := fakegcs.Shared(t)
	bucket := s.NewBucket(t)
	s.Put(t, bucket, "dir/a b", []byte("content"))
	if got := s.Get(t, bucket, "dir/a b"); string(got) != "content" {
		t.Errorf("%q", got)
	}
}
