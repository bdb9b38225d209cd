package minio_test

import (
	"testing"

	"github.com/keifs/keifs/test/minio"
)

func TestAnObjectOfTheServerIsReadBack(t *testing.T) {
	s := minio.Shared(t)
	bucket := s.MakeBucket(t)
	s.Put(t, bucket, "dir/a b", []byte("content"))
	if got := s.Get(t, bucket, "dir/a b"); string(got) != "content" {
		t.Errorf("%q", got)
	}
}
