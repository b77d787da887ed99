// What filter_chain.C uses of FairRoot and ATTPCROOT, as far as its events are concerned: which
// entries are handed from task to task, and which are filled. Written after how they behave; the
// real ones are not here.
#ifndef FAIRROOT_STAND_IN_H
#define FAIRROOT_STAND_IN_H

#include <TFile.h>
#include <TString.h>
#include <TTree.h>

#include <fstream>
#include <functional>
#include <memory>
#include <vector>

enum InitStatus { kSUCCESS };

struct FairTask {
   explicit FairTask(const char * = "") {}
   virtual ~FairTask() = default;
   virtual InitStatus Init() { return kSUCCESS; }
   virtual void Exec(Option_t *) {}
};
struct FairFileSource { TString path; explicit FairFileSource(TString p) : path(p) {} };
struct FairRootFileSink {
   TString path;
   explicit FairRootFileSink(TString p) : path(p) { std::ofstream(p.Data()) << ""; } // the file is there at once
};
struct FairParAsciiFileIo { void open(const char *, const char *) {} };
struct FairRuntimeDb {
   void setFirstInput(FairParAsciiFileIo *) {}
   void getContainer(const char *) {}
};
struct FairRootManager {
   int entry = 0;
   static FairRootManager *Instance() { static FairRootManager one; return &one; }
   int GetEntryNr() { return entry; }
};
struct FairRunAna {
   static FairRunAna *&Current() { static FairRunAna *one = nullptr; return one; }
   static FairRunAna *Instance() { return Current(); }
   FairRunAna() { Current() = this; }
   FairFileSource *source = nullptr;
   FairRootFileSink *sink = nullptr;
   FairRuntimeDb db;
   std::vector<FairTask *> tasks;
   bool fill = true;
   void SetSource(FairFileSource *s) { source = s; }
   void SetSink(FairRootFileSink *s) { sink = s; }
   FairRuntimeDb *GetRuntimeDb() { return &db; }
   void AddTask(FairTask *task) { tasks.push_back(task); }
   void MarkFill(Bool_t flag) { fill = flag; }
   void Init() { for (auto task : tasks) task->Init(); }
   void Run(int first, Long64_t last)
   {
      std::ofstream out(sink->path.Data());
      for (int entry = first; entry < last; ++entry) {
         FairRootManager::Instance()->entry = entry;
         fill = true;
         for (auto task : tasks)
            task->Exec("");
         if (fill)
            out << entry << "\n";
      }
   }
};
struct AtCopyTreeTask : FairTask {};
//: Entries without an event, which the reduction task does not look at.
inline std::vector<int> &EmptyEntries() { static std::vector<int> all; return all; }
struct AtDataReductionTask : FairTask {
   std::function<bool()> keep;
   void SetInputBranch(TString) {}
   void SetReductionFunction(std::function<bool()> function) { keep = function; }
   void Exec(Option_t *) override
   {
      for (auto entry : EmptyEntries())
         if (entry == FairRootManager::Instance()->entry)
            return;
      if (!keep())
         FairRunAna::Instance()->MarkFill(false);
   }
};
struct AtPSAMax { void SetThreshold(int) {} };
struct AtPSAtask : FairTask {
   explicit AtPSAtask(std::unique_ptr<AtPSAMax>) {}
   void SetInputBranch(TString) {}
   void SetOutputBranch(TString) {}
   void SetPersistence(bool) {}
};

#endif
