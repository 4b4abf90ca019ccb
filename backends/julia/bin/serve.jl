import ChipsBackend

ChipsBackend.Backend.leave(ChipsBackend.serve())
