// SPDX-License-Identifier: GPL-3.0-or-later
//
// An ATTPCROOT chain that goes on with the wanted events only: reads a run that was filtered, keeps
// the entries with the wanted tags, copies them whole, and finds their hits. Run it within
// ATTPCROOT (v0.4.0-beta or later, whose AtDataReductionTask takes a function):
//
//    root -l -b -q 'filter_chain.C("run_0042.root", "run_0042_tags.root", "protons.root", {"proton"})'
//
// It returns 1, and writes nothing, if the tags are not those of the run, a tag is unknown, the
// output is the input, or the run has hits of that name already.

#include "AttpcFilterTags.h"

// of FairRoot and ATTPCROOT
#include "AtCopyTreeTask.h"
#include "AtDataReductionTask.h"
#include "AtPSAMax.h"
#include "AtPSAtask.h"
#include "FairFileSource.h"
#include "FairParAsciiFileIo.h"
#include "FairRootFileSink.h"
#include "FairRootManager.h"
#include "FairRunAna.h"
#include "FairRuntimeDb.h"
#include "FairTask.h"

#include <TString.h>

#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// Keeps an entry out of the output. AtDataReductionTask does so for entries with an event only: one
/// that is empty is written whatever its tag.
class AttpcFilterTask : public FairTask {
public:
   explicit AttpcFilterTask(AttpcFilterTags::ReductionFunction keep)
      : FairTask("AttpcFilterTask"), fKeep(std::move(keep))
   {
   }
   InitStatus Init() override { return kSUCCESS; }
   void Exec(Option_t *) override
   {
      if (!fKeep())
         FairRunAna::Instance()->MarkFill(kFALSE);
   }

private:
   AttpcFilterTags::ReductionFunction fKeep;
};

void run_filter_chain(const AttpcFilterTags &tags, const TString &input, const TString &output,
                      const std::vector<std::string> &wanted, const TString &parameters, const TString &hitBranch)
{
   auto run = new FairRunAna();
   run->SetSource(new FairFileSource(input));
   run->SetSink(new FairRootFileSink(output));
   auto parameterFile = new FairParAsciiFileIo();
   parameterFile->open(TString(getenv("VMCWORKDIR")) + "/parameters/" + parameters, "in");
   run->GetRuntimeDb()->setFirstInput(parameterFile);
   run->GetRuntimeDb()->getContainer("AtDigiPar");

   // ATTPCROOT wants this one first: it gives the output the branches of the input
   run->AddTask(new AtCopyTreeTask());

   // entries with other tags: AtRawEvent is marked not good, and the output is not filled
   const auto keep = tags.Keep(wanted, [] { return FairRootManager::Instance()->GetEntryNr(); });
   auto reduce = new AtDataReductionTask();
   reduce->SetInputBranch("AtRawEvent");
   reduce->SetReductionFunction(keep);
   run->AddTask(reduce);

   // the tasks that follow run for every entry all the same: ATTPCROOT's own ask the event whether
   // it is good, and so must yours
   auto psa = std::make_unique<AtPSAMax>();
   psa->SetThreshold(45);
   auto hits = new AtPSAtask(std::move(psa));
   hits->SetInputBranch("AtRawEvent");
   hits->SetOutputBranch(hitBranch);
   hits->SetPersistence(true);
   run->AddTask(hits);

   // the last word on what is filled
   run->AddTask(new AttpcFilterTask(keep));

   run->Init();
   run->Run(0, tags.GetEntries());
}

int filter_chain(TString input, std::string friends, TString output, std::vector<std::string> wanted,
                 TString parameters = "ATTPC.e12014.par", TString hitBranch = "AtEventH",
                 const char *treeName = "cbmsim")
{
   try {
      // before the output is made: what is wrong here must cost nothing
      AttpcFilterTags tags(friends);
      {
         std::unique_ptr<TFile> file(TFile::Open(input));
         auto tree = file ? file->Get<TTree>(treeName) : nullptr;
         if (tree == nullptr)
            throw std::runtime_error(std::string(input.Data()) + ": no tree " + treeName);
         tags.Require(*tree, wanted, input.Data(), output.Data());
         if (tree->GetBranch(hitBranch) != nullptr)
            throw std::runtime_error(std::string(input.Data()) + ": has a branch " + hitBranch.Data() +
                                     " already; give the hits another name (hitBranch)");
      }
      run_filter_chain(tags, input, output, wanted, parameters, hitBranch);
   } catch (const std::exception &error) {
      std::cerr << "filter_chain: " << error.what() << std::endl;
      return 1;
   }
   return 0;
}
